"""Requests by route and by client, over time."""

from __future__ import annotations

from support.provider import Clock

from gateway.history.breakdown import IDLE_S, MAX_NAMES, OTHERS, Breakdown, Counts, add_up, fold
from gateway.history.ring import History
from gateway.history.sampling import MAX_NAMES as MAX_IN_SLICE
from gateway.history.sampling import Sampler, Slice
from gateway.history.spans import SPANS, STEPS
from gateway.metrics import Metrics
from gateway.metrics.requests import Clients

HOUR = SPANS["1h"]


def count(clients: Clients, client_id: str, status: int) -> None:
    """Count a request, as `RequestLog.finish` does."""
    counts = clients.counts.get(client_id) or clients.add(client_id)
    counts.requests += 1
    counts.seconds += 0.5
    if status >= 400:
        counts.record_error(status)


def test_slice_has_what_each_route_and_each_client_did() -> None:
    metrics = Metrics()
    counts = metrics.data_plane
    counts.route("early").record("GET", 200, "upstream", 1.0)
    sampler = Sampler(metrics)
    counts.route("orders").record("GET", 200, "upstream", 0.25)
    counts.route("orders").record("GET", 404, "upstream", 0.25)
    counts.route("orders").record("GET", 503, "gateway", 0.5)
    counts.route("idle")
    for status in (200, 429, 502):
        count(counts.clients, "shop", status)
    part = sampler.take()
    assert part.routes == [Counts("orders", 3, 1, 1, 1.0)]
    assert part.clients == [Counts("shop", 3, 1, 1, 1.5)]
    again = sampler.take()
    assert (again.routes, again.clients) == ([], [])


def test_route_that_a_reload_takes_away_takes_nothing_back() -> None:
    metrics = Metrics()
    counts = metrics.data_plane
    sampler = Sampler(metrics)
    for name in ("old", "new"):
        counts.route(name).record("GET", 200, "upstream", 0.01)
        counts.upstream(name).observe(0.01)
    assert sampler.take().requests == 2
    for _ in range(2):
        counts.name_only({"new"}, {"new"})
    counts.route("new").record("GET", 200, "upstream", 0.01)
    part = sampler.take()
    assert (part.requests, sum(part.durations), sum(part.upstream_durations)) == (1, 1, 0)
    counts.route("old").record("GET", 200, "upstream", 0.01)
    counts.upstream("old").observe(0.01)
    part = sampler.take()
    assert (part.requests, sum(part.upstream_durations)) == (1, 1), "of its name, but another one"


def test_clients_of_a_process_are_bounded_and_the_others_added_up() -> None:
    clients = Clients()
    for number in range(Clients.MAX_CLIENTS + 5):
        count(clients, f"client-{number}", 200)
    taken = clients.take()
    assert len(taken) == Clients.MAX_CLIENTS + 1
    assert taken[OTHERS].requests == 5
    assert clients.take() == {}


def test_slice_names_the_busiest_and_adds_up_the_others() -> None:
    metrics = Metrics()
    sampler = Sampler(metrics)
    for number in range(MAX_IN_SLICE + 2):
        for _ in range(1 + (number >= 2)):
            count(metrics.data_plane.clients, f"client-{number}", 200)
    part = sampler.take()
    assert len(part.clients) == MAX_IN_SLICE + 1
    assert add_up("", part.clients).requests == 2 * MAX_IN_SLICE + 2
    assert part.clients[-1].name == OTHERS
    assert part.clients[-1].requests == 2
    assert fold([Counts("a", 1)], 5) == [Counts("a", 1)]


def test_requests_of_a_name_are_added_up_over_processes_and_time() -> None:
    clock = Clock(86_400.0)
    history = History(clock=clock)
    history.add(1, Slice(routes=[Counts("orders", 4, 1, 0, 0.4)]))
    history.add(2, Slice(routes=[Counts("orders", 6, 0, 2, 0.6), Counts("users", 1)]))
    clock.now += HOUR.step_s
    history.add(1, Slice(routes=[Counts("orders", 5)]))
    assert history.routes.totals(HOUR) == [Counts("orders", 15, 1, 2, 1.0), Counts("users", 1)]
    steps = history.routes.steps("orders", HOUR)
    assert [step.requests for step in steps][-3:] == [0, 10, 5]
    assert (steps[-2].mean_s, steps[-2].failed_share, steps[-2].rejected_share) == (0.1, 0.2, 0.1)
    assert steps[0].mean_s is None
    assert history.routes.steps("nothing", HOUR) == [Counts("nothing")] * STEPS
    clock.now += HOUR.seconds - HOUR.step_s
    assert [one.requests for one in history.routes.totals(HOUR)] == [5]
    assert [one.requests for one in history.routes.totals(SPANS["24h"])] == [15, 1]
    clock.now += SPANS["24h"].seconds
    assert history.routes.totals(SPANS["24h"]) == []
    history.add(1, Slice(routes=[Counts("orders", 7)]))
    assert history.routes.totals(SPANS["24h"]) == [Counts("orders", 7)]


def test_names_are_bounded_until_an_idle_one_makes_room() -> None:
    clock = Clock(86_400.0)
    breakdown = Breakdown(clock=clock)
    breakdown.add(Counts(f"r{number}", 1) for number in range(MAX_NAMES + 3))
    assert len(breakdown) == MAX_NAMES + 1
    assert breakdown.totals(HOUR)[-1] == Counts(OTHERS, 3), "added up, and last"
    clock.now += IDLE_S
    breakdown.add([Counts("r0", 1), Counts("late", 2)])
    names = {one.name for one in breakdown.totals(HOUR)}
    assert {"r0", "late", OTHERS} <= names
    assert len(breakdown) == MAX_NAMES + 1
