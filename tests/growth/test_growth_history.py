"""What the console keeps of the past is bounded, and costs the same however much happened."""

from __future__ import annotations

import tracemalloc

from support.growth import assert_constant, assert_linear, cost_of, counted
from support.provider import Clock

from gateway.history.breakdown import MAX_NAMES, Breakdown, Counts
from gateway.history.events import MAX_EVENTS, Events
from gateway.history.ring import STEP_S, History, Recent
from gateway.history.sampling import BUCKETS, Refusal, Sampler, Slice
from gateway.history.spans import SPANS, STEPS
from gateway.metrics import Metrics
from gateway.oauth.models import AccessToken, digest_token
from gateway.oauth.usage import MAX_CLIENTS, UsageTracker

N = 200


def refusals(n: int) -> Slice:
    return Slice(
        refusals=[Refusal(f"r{at}", 403, "forbidden", 1, "shop", "::1") for at in range(n)]
    )


def test_slice_is_added_to_the_ring_at_the_same_cost() -> None:
    clock = Clock()
    history = History(clock=clock)
    costs = []
    for _ in range(4 * STEPS):
        clock.now += STEP_S
        with counted() as cost:
            history.add(1, Slice(requests=1))
        costs.append(int(cost))
    assert len(history._steps["15m"]) == STEPS + 1
    assert max(map(len, history._steps.values())) == STEPS + 1
    assert_constant(max(costs[STEPS : 2 * STEPS]), max(costs[-STEPS:]))
    assert_constant(cost_of(history.steps), cost_of(history.steps))


def test_requests_by_name_cost_in_proportion_to_what_is_reported() -> None:
    def report(n: int) -> int:
        breakdown = Breakdown(clock=Clock())
        part = [Counts(f"r{number}", 1) for number in range(n)]
        breakdown.add(part)
        return cost_of(lambda: breakdown.add(part))

    assert_linear(report(MAX_NAMES), report(4 * MAX_NAMES))


def test_history_of_a_busy_day_stays_within_the_memory_that_is_documented() -> None:
    """docs/guides/console.md says 8 MiB."""
    clock = Clock()
    tracemalloc.start()
    try:
        history = History(clock=clock)
        before, _ = tracemalloc.get_traced_memory()
        counts = [1_000_000 + number for number in range(BUCKETS)]
        clients = [Counts(f"client-{number}", 1000, 10, 1, 3.5) for number in range(3 * MAX_NAMES)]
        for span in SPANS.values():
            for _ in range(STEPS + 1):
                clock.now += span.step_s
                part = Slice(requests=10**9, durations=counts, upstream_durations=counts,
                             inflight=1000, routes=clients[:1])  # fmt: skip
                history.add(1, part)
        history.add(1, Slice(routes=clients, clients=clients))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(history.routes) == len(history.clients) == MAX_NAMES + 1
    assert after - before < 8 * 1024 * 1024


def test_events_cost_in_proportion_to_what_is_reported_and_are_bounded() -> None:
    clock = Clock()
    assert_linear(*(
        cost_of(lambda n=n: Recent().receive(1, refusals(n))) for n in (N, 4 * N)  # type: ignore[misc]
    ))  # fmt: skip
    events = Events(wall_clock=clock)
    worst = 0
    for number in range(6 * MAX_EVENTS):
        with counted() as cost:
            events.add("refusal", f"reason-{number}")
        worst = max(worst, int(cost))
    assert len(events) == MAX_EVENTS
    assert len(events._open) <= 2 * MAX_EVENTS
    assert worst < 6 * MAX_EVENTS, "what is merged no more is dropped now and then"


def test_sample_costs_in_proportion_to_the_routes_in_use() -> None:
    costs = []
    for n in (N, 4 * N):
        metrics = Metrics()
        for number in range(n):
            metrics.data_plane.route(f"r{number}").record("GET", 200, "upstream", 0.01)
        sampler = Sampler(metrics)
        costs.append(cost_of(sampler.take))
    assert_linear(*costs)


async def test_usage_of_clients_is_noted_at_the_same_cost_and_bounded() -> None:
    tracker = UsageTracker(None)  # type: ignore[arg-type]
    costs = []
    for number in range(MAX_CLIENTS + N):
        token = AccessToken(digest_token("x"), f"c{number}", "", (), 0, 4e9)
        if number in {N, MAX_CLIENTS + N - 1}:
            costs.append(cost_of(lambda token=token: tracker.read(token)))  # type: ignore[misc]
        tracker.read(token)
    assert_constant(*costs)
