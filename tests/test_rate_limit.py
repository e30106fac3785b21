"""Rate limits: what passes, what does not, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.deadlines import until, within
from support.processes.postgresql import PostgresServer
from support.processes.redis import RedisCluster, RedisServer
from support.provider import Clock
from support.servers.fault_proxy import FaultProxy
from support.stores.timeouts import set_store_timeouts
from support.tiers import slow

from gateway.addresses import source_of
from gateway.metrics import Tally
from gateway.rate_limit import (
    Demand,
    LocalRateLimits,
    Quota,
    RateLimit,
    RateLimits,
    RateRules,
)
from gateway.store import open_rate_limits
from gateway.store.postgresql.rate_limit import PostgresRateLimits
from gateway.store.redis.rate_limit import RedisRateLimits

TEN_A_SECOND = RateLimit(10, 1.0, 5)


def demand(limit: RateLimit = TEN_A_SECOND, subject: str = "client:a", scope: str = "") -> Demand:
    return Demand(subject, scope, limit)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_burst_passes_at_once_and_then_one_by_one(clock: Clock) -> None:
    limits = LocalRateLimits(clock=clock)
    assert [limits.acquire([demand()]).remaining for _ in range(5)] == [4, 3, 2, 1, 0]
    refused = limits.acquire([demand()])
    assert refused == Quota(False, 5, 0, 1, 1)
    assert limits.acquire([demand()]) == refused, "a request that is refused costs nothing"
    clock.now += 0.1
    assert limits.acquire([demand()]).is_allowed
    assert not limits.acquire([demand()]).is_allowed
    clock.now += 60
    assert [limits.acquire([demand()]).is_allowed for _ in range(6)] == [True] * 5 + [False]


def test_quota_reports_seconds_rounded_up(clock: Clock) -> None:
    limits = LocalRateLimits(clock=clock)
    slow = demand(RateLimit(1, 60.0, 2))
    assert limits.acquire([slow]) == Quota(True, 2, 1, 60)
    clock.now += 0.5
    assert limits.acquire([slow]) == Quota(True, 2, 0, 120)
    assert limits.acquire([slow]) == Quota(False, 2, 0, 120, 60)


def test_fields_are_those_of_the_draft() -> None:
    assert Quota(True, 5, 4, 1).fields() == (
        ("RateLimit-Limit", "5"), ("RateLimit-Remaining", "4"), ("RateLimit-Reset", "1"),
    )  # fmt: skip
    assert Quota(False, 5, 0, 2, 1).fields()[-1] == ("Retry-After", "1")


@given(
    requests=st.integers(1, 1000),
    per_s=st.sampled_from([0.001, 0.7, 1.0, 60.0, 86400.0]),
    burst=st.integers(1, 200),
    pauses=st.lists(st.floats(0, 3), max_size=300),
)
def test_never_more_pass_than_the_burst_and_the_rate_allow(
    requests: int, per_s: float, burst: int, pauses: Sequence[float]
) -> None:
    clock = Clock()
    limits = LocalRateLimits(clock=clock)
    limit = RateLimit(requests, per_s, burst)
    passed: list[float] = []
    for pause in [0.0] * (burst + 1) + list(pauses):
        clock.now += pause * limit.interval_s
        if limits.acquire([demand(limit)]).is_allowed:
            passed.append(clock.now)
    assert len(passed) >= burst
    for last, at in enumerate(passed):
        for first in range(max(0, last - 250), last + 1):
            allowed = burst + (at - passed[first]) / limit.interval_s
            assert last - first + 1 <= allowed + 0.01


def test_of_two_limits_both_count_or_none(clock: Clock) -> None:
    limits = LocalRateLimits(clock=clock)
    wide, narrow = demand(RateLimit(1, 60.0, 3)), demand(RateLimit(1, 60.0, 1), scope="route")
    assert limits.acquire([wide, narrow]) == Quota(True, 1, 0, 60)
    for _ in range(3):
        assert limits.acquire([wide, narrow]) == Quota(False, 1, 0, 60, 60)
    assert limits.acquire([wide]) == Quota(True, 3, 1, 120)


def test_subjects_and_scopes_have_buckets_of_their_own(clock: Clock) -> None:
    limits = LocalRateLimits(clock=clock)
    once = RateLimit(1, 60.0, 1)
    demands = [demand(once, subject, scope) for subject in ("a", "b") for scope in ("", "r")]
    assert all(limits.acquire([one]).is_allowed for one in demands)
    assert not any(limits.acquire([one]).is_allowed for one in demands)


def test_limit_that_changes_starts_again(clock: Clock) -> None:
    limits = LocalRateLimits(clock=clock)
    assert limits.acquire([demand(RateLimit(1, 86400.0, 1))]).is_allowed
    assert limits.acquire([demand(RateLimit(1000, 86400.0, 1000))]).remaining == 999


def test_buckets_that_are_empty_again_are_forgotten_and_memory_is_bounded(clock: Clock) -> None:
    limits = LocalRateLimits(max_keys=100, clock=clock)
    for number in range(1000):
        limits.acquire([demand(subject=f"client:{number}")])
    assert len(limits) <= 101
    clock.now += 60
    for number in range(100):
        limits.acquire([demand(subject=f"client:new-{number}")])
        clock.now += 60
    assert len(limits) <= 2


def test_rules_name_the_limits_on_a_request() -> None:
    route, everywhere, own = (RateLimit(n, 1.0, n) for n in (1, 2, 3))
    rules = RateRules(per_client=everywhere)

    def demands(**given: object) -> tuple[Demand, ...]:
        values = {
            "route": "r", "route_limit": None, "is_for_all": False,
            "client_id": "c", "client_limit": None, "address": "192.0.2.1",
        }  # fmt: skip
        return rules.demands(**(values | given))  # type: ignore[arg-type]

    assert demands() == (Demand("client:c", "", everywhere),)
    assert demands(client_limit=own) == (Demand("client:c", "", own),)
    assert demands(route_limit=route) == (
        Demand("client:c", "r", route), Demand("client:c", "", everywhere),
    )  # fmt: skip
    assert demands(client_id=None) == (Demand("address:192.0.2.1", "", everywhere),)
    assert demands(route_limit=route, is_for_all=True)[0] == Demand("route:r", "r", route)
    assert RateRules().demands(
        route="r", route_limit=None, is_for_all=False, client_id="c", client_limit=None, address=""
    ) == ()  # fmt: skip


async def test_limits_of_one_process_are_decided_without_waiting(clock: Clock) -> None:
    counts = Tally()
    limits = RateLimits(LocalRateLimits(clock=clock), count=lambda name: _add(counts, name))
    quota = limits.try_acquire([demand()])
    assert quota is not None
    assert quota.remaining == 4
    assert (await limits.acquire([demand()])).remaining == 3
    assert counts == {"allowed": 2}


def _add(counts: Tally, name: str) -> None:
    counts[name] += 1


@pytest.fixture
def impatience_with_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production: these tests wait for what times out."""
    set_store_timeouts(monkeypatch, store_s=1, rate_limits_s=0.25)


OpenLimits = Callable[[str], RedisRateLimits | PostgresRateLimits]


@pytest.fixture
async def open_limits() -> AsyncIterator[OpenLimits]:
    """Opens limits by their URL, which are closed however the test ends."""
    async with AsyncExitStack() as opened:

        def open_one(url: str) -> RedisRateLimits | PostgresRateLimits:
            limits = open_rate_limits(url)
            assert limits is not None
            opened.push_async_callback(limits.close)
            return limits

        yield open_one


# Nothing becomes free while a test runs.
DAILY = RateLimit(20, 20 * 86400.0, 20)
SLACK_S = 3600


@pytest.mark.parametrize(
    "kind", ["standalone", "postgresql", pytest.param("cluster", marks=slow("Redis Cluster"))]
)
async def test_fleet_shares_one_limit_exactly(
    kind: str, request: pytest.FixtureRequest, open_limits: OpenLimits
) -> None:
    url = request.getfixturevalue(f"{kind}_for_limits").url
    fleet = [open_limits(url) for _ in range(3)]
    others = [demand(RateLimit(30, 30 * 86400.0, 30), "client:a{b}")]
    demands = [demand(DAILY, "client:a{b}", "r"), *others]
    quotas = await asyncio.gather(*(fleet[n % 3].acquire(demands) for n in range(60)))
    assert sum(quota.is_allowed for quota in quotas) == 20
    assert sorted(quota.remaining for quota in quotas if quota.is_allowed) == list(range(20))
    refused = next(quota for quota in quotas if not quota.is_allowed)
    assert refused.limit == 20
    # Rounded up, less what passed since: that may be seconds on a busy machine.
    assert 86400 - SLACK_S < refused.retry_after_s <= 86400
    assert 20 * 86400 - SLACK_S < refused.reset_s <= 20 * 86400
    quotas = await asyncio.gather(*(fleet[n % 3].acquire(others) for n in range(60)))
    assert sum(quota.is_allowed for quota in quotas) == 10, "those refused cost nothing"


@pytest.fixture
def standalone_for_limits(redis_server: RedisServer) -> RedisServer:
    return redis_server


@pytest.fixture
def postgresql_for_limits(empty_postgresql: PostgresServer) -> PostgresServer:
    return empty_postgresql


@pytest.fixture
def cluster_for_limits(tmp_path_factory: pytest.TempPathFactory) -> object:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster")).start()
    yield cluster
    cluster.stop()


async def test_shared_buckets_end_by_themselves(
    redis_server: RedisServer, open_limits: OpenLimits
) -> None:
    limits = open_limits(redis_server.url)
    await limits.acquire([demand(RateLimit(1, 60.0, 2), "client:a", "r")])
    (key,) = redis_server.all_keys()
    assert key == b"gateway:rate:{client:a}:r:1/60/2"
    assert 50_000 < int(redis_server.control.pttl(key)) <= 60_001


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
async def test_clock_of_another_redis_neither_opens_nor_closes_a_limit_for_long(
    redis_server: RedisServer, ahead_s: int, open_limits: OpenLimits
) -> None:
    # As after a failover to a server whose clock is behind (or ahead of) the one before.
    limits = open_limits(redis_server.url)
    brief = [demand(RateLimit(2, 0.4, 2))]
    for expected in (True, True, False):
        assert (await limits.acquire(brief)).is_allowed is expected
    (key,) = redis_server.all_keys()
    bucket: Any = redis_server.control.get(key)
    level, _, since = bucket.partition(b"@")
    moved = b"%b@%d" % (level, int(since) + ahead_s * 1_000_000)
    redis_server.control.set(key, moved, px=60_000)
    if ahead_s > 0:
        assert not (await limits.acquire(brief)).is_allowed, "it is as full as it was"
    async with within():
        while not (await limits.acquire(brief)).is_allowed:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["redis_server", "empty_postgresql"])
async def test_shared_limit_lets_pass_again_after_its_time(
    kind: str, request: pytest.FixtureRequest, open_limits: OpenLimits
) -> None:
    limits = open_limits(request.getfixturevalue(kind).url)
    brief = [demand(RateLimit(1, 0.2, 1))]
    assert (await limits.acquire(brief)).is_allowed
    async with within():
        while not (await limits.acquire(brief)).is_allowed:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("impatience_with_stores")
@pytest.mark.parametrize("trouble", ["killed", "blackholed"])
async def test_each_process_applies_the_limit_while_redis_is_unavailable(
    redis_server: RedisServer, trouble: str, open_limits: OpenLimits
) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        counts = Tally()
        shared = open_limits(f"redis://127.0.0.1:{proxy.port}")
        limits = RateLimits(LocalRateLimits(), shared, count=lambda name: _add(counts, name))
        demands = [demand(DAILY)]
        assert limits.try_acquire(demands) is None, "it is to be awaited"
        assert (await limits.acquire(demands)).remaining == 19
        if trouble == "killed":
            redis_server.kill()
        else:
            proxy.drop()
        quotas = [limits.try_acquire(demands) or await limits.acquire(demands) for _ in range(30)]
        assert sum(quota.is_allowed for quota in quotas) == 20
        assert counts["fallback"] == 30
        if trouble == "killed":
            redis_server.start()
        else:
            proxy.forward()
        async with within():
            while (await limits.acquire(demands)).remaining != 18:
                await asyncio.sleep(0.02)
        await until(lambda: limits.try_acquire(demands) is None)


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
async def test_clock_of_another_postgresql_neither_opens_nor_closes_a_limit_for_long(
    empty_postgresql: PostgresServer, ahead_s: int, open_limits: OpenLimits
) -> None:
    limits = open_limits(empty_postgresql.url)
    brief = [demand(RateLimit(2, 0.4, 2))]
    for expected in (True, True, False):
        assert (await limits.acquire(brief)).is_allowed is expected
    empty_postgresql.sql(f"UPDATE gateway.rate_limits SET at = at + {ahead_s}")
    if ahead_s > 0:
        assert not (await limits.acquire(brief)).is_allowed, "it is as full as it was"
    async with within():
        while not (await limits.acquire(brief)).is_allowed:
            await asyncio.sleep(0.02)


async def test_buckets_in_postgresql_that_are_empty_again_are_removed(
    empty_postgresql: PostgresServer,
    open_limits: OpenLimits,
) -> None:
    limits = open_limits(empty_postgresql.url)
    assert isinstance(limits, PostgresRateLimits)
    await limits.acquire([demand(RateLimit(1, 86400.0, 1), "client:a", "r")])
    await limits.acquire([demand(RateLimit(1000, 0.001, 1), "client:b", "r")])
    count = "SELECT count(*) FROM gateway.rate_limits"

    async def one_is_left() -> bool:
        await limits.purge()
        return empty_postgresql.sql(count) == "1"

    assert empty_postgresql.sql(count) == "2"
    await until(one_is_left)
    assert empty_postgresql.sql("SELECT key FROM gateway.rate_limits").startswith("client%3Aa:r:")


def test_store_in_a_file_shares_no_limits() -> None:
    assert open_rate_limits("sqlite:///a.db") is None


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("local", "local"),
    ],
)
def test_addresses_are_counted_by_what_one_person_has_of_them(address: str, source: str) -> None:
    assert source_of(address) == source
