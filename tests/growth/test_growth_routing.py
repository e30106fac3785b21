"""What a client can make long before its token is looked at, and what an operator configures.

Routing grows at most linearly with the request, and not with the routes of others.
"""

from __future__ import annotations

from itertools import count

import pytest
from support.growth import assert_does_not_grow, assert_grows_linearly, cost_of

from gateway.addresses import LOCAL_PEER
from gateway.downstream.request import MAX_QUERY_PARAMETERS, Peer, Request
from gateway.http.errors import BadRequestError, NoRouteError
from gateway.http.request_head import read_request_head, read_request_line
from gateway.http.target import parse_target
from gateway.metrics import Histogram, RouteMetrics
from gateway.proxy.conditions import Condition, HeaderCondition, QueryCondition, Value
from gateway.proxy.router import Route, Router
from gateway.upstream.upstream import Upstream

NOWHERE = Upstream("u", (), durations=Histogram())
NAMES = count()


def route(
    path: str, *, hosts: tuple[str, ...] = (), conditions: tuple[Condition, ...] = ()
) -> Route:
    name = f"r{next(NAMES)}"
    return Route(name, path, NOWHERE, RouteMetrics(), hosts=hosts, conditions=conditions)


def request(target: str, *fields: str) -> Request:
    head = read_request_head("\r\n".join(("Host: h", *fields)).encode(), max_fields=1000)
    return Request(read_request_line(f"GET {target} HTTP/1.1".encode()), head, Peer(LOCAL_PEER))


@pytest.mark.parametrize("segment", ["/a", "/a;b", "/%20", "/%25", "/..a"])
def test_long_path_costs_no_more_where_no_route_is_so_deep(segment: str) -> None:
    router = Router([route("/"), route("/x"), route("/x/y"), route("/", hosts=("*.wild.test",))])

    def match(segments: int) -> int:
        target = parse_target(segment * segments)
        return cost_of(lambda: router.match("a.b.wild.test", target, "GET"))

    if segment == "/a":
        assert_does_not_grow(match, 1000)
    assert_grows_linearly(match, 500)


def test_long_host_costs_no_more_where_no_wildcard_is_so_long() -> None:
    router = Router([route("/"), route("/", hosts=("*.wild.test",))])

    def match(labels: int) -> int:
        host = "a." * labels + "wild.test"
        return cost_of(lambda: router.match(host, parse_target("/"), "GET"))

    assert_does_not_grow(match, 500)
    assert router.match("a." * 500 + "wild.test", parse_target("/"), "GET") is router.routes[1]
    assert router.match("a." * 500 + "other.test", parse_target("/"), "GET") is router.routes[0]


@pytest.mark.parametrize("hosts", [(), ("*.wild.test",), ("h.wild.test",)])
def test_match_does_not_depend_on_the_number_of_routes(hosts: tuple[str, ...]) -> None:
    def match(routes: int) -> int:
        router = Router(route(f"/p{at}/a/b", hosts=hosts) for at in range(routes))
        target = parse_target("/p7/a/b/c/d")
        return cost_of(lambda: router.match("h.wild.test", target, "GET"))

    assert_does_not_grow(match, 100)


@pytest.mark.parametrize("escape", ["%C3", "%41", "%25", "%2541", "/", "/.", "/a", "/a/..", "%c3;"])
def test_path_is_read_in_proportion_to_its_length(escape: str) -> None:
    def read(repetitions: int) -> int:
        def both() -> None:
            target = parse_target("/x" + escape * repetitions)
            _ = target.other_readings

        return cost_of(both)

    assert_grows_linearly(read, 500)


def test_query_is_read_once_for_all_conditions() -> None:
    def match(routes: int) -> int:
        conditions = [(QueryCondition(f"p{at}", Value(exact="yes")),) for at in range(routes)]
        router = Router(route("/", conditions=one) for one in conditions)
        asked = request("/?" + "&".join(f"q{at}=1" for at in range(500)))

        def find() -> None:
            with pytest.raises(NoRouteError):
                router.match("h", asked.target, "GET", asked)

        return cost_of(find)

    assert match(1) > 500  # the parameters, once
    assert match(41) - match(1) < 40 * 30


def test_header_fields_are_sorted_once_for_all_conditions() -> None:
    def match(routes: int) -> int:
        conditions = [(HeaderCondition(f"X-{at}", Value(exact="yes")),) for at in range(routes)]
        router = Router(route("/", conditions=one) for one in conditions)
        asked = request("/", *(f"Y-{at}: 1" for at in range(100)))

        def find() -> None:
            with pytest.raises(NoRouteError):
                router.match("h", asked.target, "GET", asked)

        return cost_of(find)

    assert match(41) - match(1) < 40 * 30


def test_query_with_more_parameters_than_are_looked_at_is_rejected_only_by_conditions() -> None:
    asked = request("/?" + "&".join(["a=1"] * (MAX_QUERY_PARAMETERS + 1)))
    plain = Router([route("/")])
    assert plain.match("h", asked.target, "GET", asked).path == "/"
    absent = Router([route("/", conditions=(QueryCondition("debug", Value(is_absent=True)),))])
    with pytest.raises(BadRequestError) as rejected:
        absent.match("h", asked.target, "GET", asked)
    assert rejected.value.reason == "query_parameters"
    fits = request("/?" + "&".join(["a=1"] * MAX_QUERY_PARAMETERS))
    assert absent.match("h", fits.target, "GET", fits).path == "/"


def test_table_of_routes_of_one_path_is_built_in_proportion_to_them() -> None:
    def build(routes: int) -> int:
        made = [
            route("/", conditions=(HeaderCondition(f"X-{at}", Value(exact="yes")),))
            for at in range(routes)
        ]
        return cost_of(lambda: Router(made))

    assert_grows_linearly(build, 200)
