"""What the console keeps of the past is bounded, and costs the same however much happened."""

from __future__ import annotations

from support.growth import assert_constant, assert_linear, cost_of, counted
from support.provider import Clock

from gateway.history.events import MAX_EVENTS, Events
from gateway.history.ring import STEP_S, STEPS, History, Recent
from gateway.history.sampling import Refusal, Sampler, Slice
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
    assert len(history._steps) == STEPS + 1
    assert_constant(costs[STEPS], costs[-1])
    assert_constant(cost_of(history.steps), cost_of(history.steps))


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
