"""The last minutes: slices of counters, added up by time, and events."""

from __future__ import annotations

import pytest
from support.provider import Clock

from gateway.history.events import MAX_EVENTS, MERGE_S, Events
from gateway.history.ring import STEP_S, History, join, quantile
from gateway.history.sampling import BUCKETS, Refusal, Sampler, Slice
from gateway.history.spans import SPANS, STEPS
from gateway.metrics import DURATION_BUCKETS_S, Metrics


def test_slice_reports_what_was_counted_since_the_last_one() -> None:
    metrics = Metrics()
    sampler = Sampler(metrics)
    route = metrics.data_plane.route("api")
    route.record("GET", 200, "upstream", 0.003)
    route.record("GET", 502, "gateway", 3.0)
    metrics.data_plane.upstream("main").observe(0.002)
    metrics.data_plane.token_cache_lookups["hit"] += 3
    metrics.data_plane.token_cache_lookups["miss"] += 1
    metrics.provider.tokens_issued.labels("client_credentials").inc()
    metrics.data_plane.inflight.count = 2
    metrics.data_plane.refusals.count("api", 401, "missing", "", "192.0.2.1")
    metrics.data_plane.refusals.count("api", 401, "missing", "", "192.0.2.2")
    part = sampler.take()
    assert (part.requests, part.errors, part.cache_hits, part.cache_lookups) == (2, 1, 3, 4)
    assert (sum(part.durations), sum(part.upstream_durations)) == (2, 1)
    assert (part.tokens_issued, part.inflight, part.is_store_up) == (1, 2, True)
    assert part.refusals == [Refusal("api", 401, "missing", 2, "", "192.0.2.2")]
    metrics.store.set_up(False)
    again = sampler.take()
    assert (again.requests, sum(again.durations), list(again.refusals)) == (0, 0, [])
    assert (again.is_store_up, again.is_store_writable) == (False, True)
    metrics.store.set_writable(False)
    assert not sampler.take().is_store_writable


def test_kinds_of_refusals_are_bounded() -> None:
    refusals = Metrics().data_plane.refusals
    for number in range(refusals.MAX_KINDS + 5):
        refusals.count(f"route-{number}", 401, "missing", "", "")
    assert len(refusals.take()) == refusals.MAX_KINDS
    assert refusals.take() == {}


def test_history_adds_up_processes_by_time() -> None:
    clock = Clock(10_000.0)
    history = History(clock=clock)
    history.add(1, Slice(requests=10, errors=1, inflight=3))
    history.add(2, Slice(requests=5, inflight=4))
    assert history.steps()[-1].requests == 0, "the step is not complete yet"
    clock.now += STEP_S
    last = history.steps()[-1]
    assert (last.requests, last.rate, last.inflight) == (15, 15 / STEP_S, 7)
    assert last.error_share == pytest.approx(1 / 15)
    assert history.inflight == 7
    history.forget(2)
    assert history.inflight == 3
    assert history.steps()[-1].requests == 15, "what it counted stays"


def test_history_is_as_long_as_its_span_and_has_gaps_where_nothing_was_reported() -> None:
    clock = Clock(10_000.0)
    history = History(clock=clock)
    for _ in range(STEPS * 2):
        history.add(1, Slice(requests=1))
        clock.now += STEP_S
    steps = history.steps()
    assert len(steps) == STEPS
    assert [step.requests for step in steps] == [1] * STEPS
    clock.now += 3 * STEP_S
    assert [step.requests for step in history.steps()][-4:] == [1, 0, 0, 0]
    assert history.steps()[-1].error_share is None
    assert join(history.steps()).requests == STEPS - 3


def test_longer_spans_have_longer_steps_and_show_the_one_that_has_begun() -> None:
    clock = Clock(86_400.0 * 10)
    history = History(clock=clock)
    for _ in range(60):
        history.add(1, Slice(requests=10))
        clock.now += 1
    for name, requests in (("1h", 600), ("6h", 600), ("24h", 600)):
        steps = history.steps(SPANS[name])
        assert len(steps) == STEPS
        assert join(steps).requests == requests
        assert not steps[0].is_known, "the gateway had not started"
    begun = history.steps(SPANS["24h"])[-1]
    assert begun.rate == pytest.approx(10), "by the time that has passed, not by all of its time"
    assert history.seconds_ago(SPANS["24h"]) == 60 - SPANS["24h"].step_s
    clock.now += 86_400 * 2
    assert join(history.steps(SPANS["24h"])).requests == 0


def test_quantiles_are_those_of_prometheus() -> None:
    counts = [0] * BUCKETS
    assert quantile(counts, 0.5) is None
    counts[3] = 100  # 2.5 to 5 ms
    assert quantile(counts, 0.5) == pytest.approx(0.00375)
    counts[-1] = 900
    assert quantile(counts, 0.99) == DURATION_BUCKETS_S[-1]


def test_alike_refusals_are_one_event_and_logins_are_distinguished() -> None:
    clock = Clock()
    events = Events(wall_clock=clock)
    events.refused(Refusal("api", 401, "missing", 3, "", "192.0.2.1"))
    clock.now += 5
    events.refused(Refusal("api", 401, "missing", 2, "", "192.0.2.2"))
    events.refused(Refusal("_provider", 401, "invalid_client", 1, "shop", "192.0.2.3"))
    login, refusal = events.newest("login"), events.newest("refusal")
    assert [(event.who, event.address) for event in login] == [("shop", "192.0.2.3")]
    (event,) = refusal
    assert (event.count, event.last_at - event.at, event.address) == (5, 5.0, "192.0.2.2")
    clock.now += MERGE_S
    events.refused(Refusal("api", 401, "missing", 1, "", ""))
    assert [event.count for event in events.newest("refusal")] == [1, 5]


def test_store_outage_is_reported_once_however_many_processes_met_it() -> None:
    events = Events()
    for process in (1, 2, 1):
        events.receive(process, Slice(is_store_up=False))
    events.receive(1, Slice())
    assert [event.is_bad for event in events.newest("store")] == [True]
    events.forget(2)  # the process ended before it saw the store again
    assert sorted(event.is_bad for event in events.newest("store")) == [False, True]


def test_rejected_writes_are_an_event_of_their_own() -> None:
    events = Events()
    for process in (1, 2):
        events.receive(process, Slice(is_store_writable=False))
    assert [event.title for event in events.newest("store")] == ["The store rejects writes"]
    events.receive(1, Slice())
    events.forget(2)
    assert {event.title for event in events.newest("store")} == {
        "The store rejects writes", "The store accepts writes again",
    }  # fmt: skip


def test_events_are_bounded() -> None:
    events = Events()
    for number in range(MAX_EVENTS * 3):
        events.refused(Refusal(f"route-{number}", 401, "missing", 1, "x" * 1000, ""))
    assert len(events) == MAX_EVENTS
    newest = next(events.newest())
    assert (newest.route, len(newest.who)) == (f"route-{MAX_EVENTS * 3 - 1}", 300)
