"""A request costs no more where its upstream has more endpoints."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from support.growth import assert_does_not_grow, assert_grows_linearly, cost_of

from gateway.metrics import Histogram
from gateway.upstream.balancing import Balance
from gateway.upstream.settings import SlowStart, UpstreamTimeouts
from gateway.upstream.status import upstream_metrics
from gateway.upstream.target import Target
from gateway.upstream.upstream import Upstream


def make_upstream(
    balance: Balance, count: int, *, weights: int = 1, warm: bool = False
) -> Upstream:
    targets = [
        Target(f"http://127.0.0.1:{1000 + at}", UpstreamTimeouts(), weight=1 + at % weights)
        for at in range(count)
    ]
    slow_start = SlowStart(60.0) if warm else None
    upstream = Upstream(
        "u", targets, durations=Histogram(), balance=balance, chance=Random(7),
        slow_start=slow_start,
    )  # fmt: skip
    if warm:
        for endpoint in upstream.endpoints:
            endpoint.warm_up(asyncio.get_running_loop().time())
        upstream.refresh()
    return upstream


@pytest.mark.parametrize("weights", [1, 3])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("balance", ["round_robin", "random_two", "consistent_hash"])
async def test_choice_does_not_depend_on_the_number_of_endpoints(
    balance: Balance, weights: int, warm: bool
) -> None:
    def choose(count: int) -> int:
        upstream = make_upstream(balance, count, weights=weights, warm=warm)
        upstream.choose("once")  # what is worked out for all requests
        return cost_of(lambda: [upstream.choose(str(number)) for number in range(30)])

    assert_does_not_grow(choose, 100)


async def test_weighted_least_requests_does_not_look_at_all_endpoints() -> None:
    def choose(count: int) -> int:
        upstream = make_upstream("least_requests", count, weights=3)
        upstream.choose("once")
        return cost_of(lambda: [upstream.choose("") for _ in range(30)])

    assert_does_not_grow(choose, 100)


async def test_hash_ring_is_built_only_where_endpoints_come_or_go() -> None:
    def refresh(count: int) -> int:
        upstream = make_upstream("consistent_hash", count)
        upstream.endpoints[0].is_healthy = False
        return cost_of(upstream.refresh)

    assert refresh(100) < 100 * 40
    assert_grows_linearly(refresh, 100)


async def test_ring_skips_what_is_down_and_keeps_the_keys_of_the_others() -> None:
    upstream = make_upstream("consistent_hash", 5)
    keys = [str(number) for number in range(500)]
    before = {key: upstream.choose(key) for key in keys}
    down = upstream.endpoints[1:3]
    for endpoint in down:
        endpoint.is_healthy = False
    upstream.refresh()
    after = {key: upstream.choose(key) for key in keys}
    assert not set(after.values()) & set(down)
    assert all(after[key] is before[key] for key in keys if before[key] not in down)
    assert set(after.values()) == set(upstream.endpoints) - set(down)


async def test_metrics_of_an_upstream_are_in_proportion_to_its_targets() -> None:
    def scrape(count: int) -> int:
        upstream = make_upstream("round_robin", count)
        return cost_of(lambda: list(upstream_metrics([upstream])))

    assert_grows_linearly(scrape, 100)
