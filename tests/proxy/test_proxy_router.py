"""Host first, then longest path, then method; each stage narrows."""

from __future__ import annotations

import pytest

from gateway.http.errors import BadRequestError, MethodNotAllowedError, NoRouteError
from gateway.http.target import parse_target
from gateway.metrics import Histogram, RouteMetrics
from gateway.proxy.conditions import Condition
from gateway.proxy.router import Route, Router
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.target import Target
from gateway.upstream.upstream import Upstream

UPSTREAM = Upstream("u", [Target("http://127.0.0.1:1", UpstreamTimeouts())], durations=Histogram())


def make_route(
    name: str,
    path: str,
    *,
    exact: bool = False,
    hosts: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    conditions: tuple[Condition, ...] = (),
) -> Route:
    return Route(
        name, path, UPSTREAM, RouteMetrics(),
        exact=exact, hosts=hosts, methods=methods, conditions=conditions,
    )  # fmt: skip


ROUTER = Router(
    [
        make_route("root", "/"),
        make_route("public", "/public"),
        make_route("api", "/api"),
        make_route("orders-read", "/api/orders", methods=("GET", "HEAD")),
        make_route("orders-write", "/api/orders", methods=("POST",)),
        make_route("orders-one", "/api/orders", exact=True, methods=("GET",)),
        make_route("a-root", "/", hosts=("a.example",)),
        make_route("a-only", "/only", hosts=("a.example", "b.example")),
        make_route("wild", "/", hosts=("*.wild.example",)),
        make_route("deep", "/", hosts=("*.deep.wild.example",)),
    ]
)


@pytest.mark.parametrize(
    ("host", "path", "method", "name"),
    [
        ("x", "/", "GET", "root"),
        ("x", "/anything/else", "PATCH", "root"),
        ("x", "/public", "GET", "public"),
        ("x", "/public/", "GET", "public"),
        ("x", "/public/x", "GET", "public"),
        ("x", "/publicity", "GET", "root"),
        ("x", "/api/orders", "GET", "orders-one"),
        ("x", "/api/orders/7", "GET", "orders-read"),
        ("x", "/api/orders/7", "POST", "orders-write"),
        ("x", "/api/ordersx", "GET", "api"),
        ("a.example", "/x", "GET", "a-root"),
        ("a.example", "/only/x", "GET", "a-only"),
        ("b.example", "/only", "GET", "a-only"),
        ("b.example", "/x", "GET", "root"),
        ("m.wild.example", "/x", "GET", "wild"),
        ("m.n.wild.example", "/x", "GET", "wild"),
        ("m.deep.wild.example", "/x", "GET", "deep"),
        ("wild.example", "/x", "GET", "root"),
        ("", "/x", "GET", "root"),
    ],
)
def test_most_specific_route_wins(host: str, path: str, method: str, name: str) -> None:
    assert ROUTER.match(host, parse_target(path), method).name == name


def test_method_that_longest_path_does_not_take_is_405_with_allow() -> None:
    with pytest.raises(MethodNotAllowedError) as refused:
        ROUTER.match("x", parse_target("/api/orders/7"), "DELETE")
    assert refused.value.headers == (("Allow", "GET, HEAD, POST"),)


def test_path_without_route_is_404() -> None:
    with pytest.raises(NoRouteError):
        Router([make_route("api", "/api")]).match("x", parse_target("/other"), "GET")


@pytest.mark.parametrize("path", ["/public;x/y", "/api;/orders", "/api/orders;x/7"])
def test_parameters_that_change_the_route_are_refused(path: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        ROUTER.match("x", parse_target(path), "GET")
    assert refused.value.reason == "target_readings"


def test_parameters_that_do_not_change_the_route_pass() -> None:
    assert ROUTER.match("x", parse_target("/public/a;v=1"), "GET").name == "public"
