"""Several gateways that share one truth."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.deadlines import until, within
from support.processes.postgresql import PostgresServer
from support.processes.redis import RedisServer
from support.running_gateway import ADMIN_TOKEN, RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream
from support.stores.values import make_client, make_token

from gateway.app.invalidation import Invalidation
from gateway.metrics import Metrics
from gateway.oauth.models import Store
from gateway.oauth.token_cache import TokenCache
from gateway.store import open_store


async def use(gateway: RunningGateway, token: str, path: str = "/api") -> int:
    """The status that a request with this token gets."""
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        assert (response.status == 503) == ("Retry-After" in response.headers)
        return response.status


async def refused(gateway: RunningGateway, token: str) -> None:
    """Wait until this gateway refuses the token."""
    async with within():
        while (status := await use(gateway, token)) != 401:
            assert status in {200, 503}
            await asyncio.sleep(0.005)


async def revoke(gateway: RunningGateway, token: str) -> None:
    async with gateway.session.post(
        gateway.admin_url("/api/v1/tokens/revoke"),
        json={"token": token},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status < 300, await response.text()


STORES = pytest.mark.parametrize("fleet", ["redis_server", "empty_postgresql"], indirect=True)


@pytest.fixture
async def fleet(
    request: pytest.FixtureRequest, start: StartGateway, upstream: RawUpstream
) -> list[RunningGateway]:
    """Three gateways on one Redis, or on what the test names."""
    server = request.getfixturevalue(getattr(request, "param", "redis_server"))
    return [await start(upstream.url, store=server.url) for _ in range(3)]


@STORES
async def test_token_issued_at_one_is_used_at_another_and_revoked_at_the_third(
    fleet: list[RunningGateway],
) -> None:
    one, another, third = fleet
    token, spared = await one.token(), await one.get_token("tester")
    for gateway in fleet:
        assert await use(gateway, token) == 200
    assert await use(another, spared) == 200
    await revoke(third, token)
    assert await use(third, token) == 401, "where it was revoked it ends at once"
    await refused(another, token)
    await refused(one, token)
    assert await use(another, spared) == 200
    assert await another.metric("gateway_cache_invalidation_lag_seconds_count") == 1


@STORES
async def test_client_deleted_at_one_is_refused_at_all(fleet: list[RunningGateway]) -> None:
    tokens = [await fleet[0].token(), await fleet[1].get_token("tester")]
    for gateway in fleet:
        for token in tokens:
            assert await use(gateway, token) == 200
    async with fleet[2].session.delete(
        fleet[2].admin_url("/api/v1/clients/tester"),
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status < 300
    for gateway in fleet:
        for token in tokens:
            await refused(gateway, token)


@pytest.mark.parametrize("kind", ["redis_server", "empty_postgresql"])
async def test_replicas_count_together_in_the_store_that_rate_limits_name(
    kind: str, request: pytest.FixtureRequest, start: StartGateway, upstream: RawUpstream
) -> None:
    url = request.getfixturevalue(kind).url
    # Nothing becomes free while the test runs.
    limit = {"requests": 10, "per": "24h"}
    fleet = [await start(upstream.url, rate_limit={"store": url, **limit}) for _ in range(2)]
    left = []
    for number in range(10):
        gateway = fleet[number % 2]
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 200
            left.append(response.headers["RateLimit-Remaining"])
    assert left == [str(number) for number in range(9, -1, -1)]
    for gateway in fleet:
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 429
        assert await gateway.metric("gateway_rate_limit_decisions_total", result="fallback") == 0


async def test_outage_of_postgresql_is_503_and_over_when_it_is_back(
    start: StartGateway, upstream: RawUpstream, own_postgresql: PostgresServer
) -> None:
    one, another = [await start(upstream.url, store=own_postgresql.url) for _ in range(2)]
    token, unused = await one.token(), await one.get_token("tester")
    assert await use(one, token) == 200
    own_postgresql.kill()
    assert await use(one, token) == 200, "cached"
    assert await use(one, unused) == 503
    assert await use(another, token) == 503
    assert await use(one, "made-up") == 503
    own_postgresql.start()
    async with within():
        while await use(one, unused) != 200 or await use(another, token) != 200:
            await asyncio.sleep(0.01)
    await revoke(another, token)
    await refused(one, token)


async def fill(store: Store, validator: TokenCache) -> None:
    await store.clients.add_client(make_client(ends=None))
    await store.tokens.add_token(make_token(ends=4_000_000_000.0), generation=7)
    await validator.lookup("token")


async def test_revocation_is_pushed_rather_than_waited_for(redis_server: RedisServer) -> None:
    mine, others = [await open_store(redis_server.url) for _ in range(2)]
    metrics = Metrics()
    validator = TokenCache(mine.tokens, metrics)
    # So that reading the log at times can't be what finds the revocation.
    invalidation = Invalidation(mine, validator, metrics, poll_s=3600)
    await invalidation.start()
    await fill(others, validator)
    await until(lambda: redis_server.control.pubsub_numsub("{gateway}:changes")[0][1] == 1)
    await others.tokens.revoke_token(make_token().digest)
    await until(lambda: validator.cached("token") is None)
    await invalidation.stop()
    for store in (mine, others):
        await store.close()


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
async def test_revocation_is_found_where_no_news_come(
    kind: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    # This user may call everything, but receives nothing from any channel.
    redis_server.fetch("ACL", "SETUSER", "deaf", "on", ">x", "~*", "+@all", "-subscribe", "&*")
    limited = redis_server.url.replace("redis://", "redis://deaf:x@")
    url = limited if kind == "redis" else f"sqlite:///{tmp_path}/a.db"
    mine, others = [await open_store(url) for _ in range(2)]
    metrics = Metrics()
    validator = TokenCache(mine.tokens, metrics)
    invalidation = Invalidation(mine, validator, metrics, poll_s=0.05)
    await invalidation.start()
    await fill(others, validator)
    await others.tokens.revoke_client_tokens("shop")
    await until(lambda: validator.cached("token") is None)
    await invalidation.stop()
    for store in (mine, others):
        await store.close()


async def test_cache_is_swept_once_a_lost_connection_is_back(
    fleet: list[RunningGateway], redis_server: RedisServer
) -> None:
    token = await fleet[0].token()
    assert await use(fleet[0], token) == 200
    validator = fleet[0].gateway.validator
    await until(lambda: redis_server.control.pubsub_numsub("{gateway}:changes")[0][1] == 3)
    assert validator.cached(token) is not None
    redis_server.control.client_kill_filter(_type="pubsub")
    await until(lambda: validator.cached(token) is None)
    assert await fleet[0].metric("gateway_cache_sweeps_total") == 1
    assert await use(fleet[0], token) == 200


async def test_five_thousand_requests_for_one_new_token_read_the_store_once(
    fleet: list[RunningGateway], redis_server: RedisServer
) -> None:
    token = await fleet[0].token()
    reads = redis_server.count_calls("hmget")
    validator = fleet[1].gateway.validator
    found = await asyncio.gather(*(validator.lookup(token) for _ in range(5000)))
    assert len({id(entry) for entry in found}) == 1
    assert redis_server.count_calls("hmget") - reads == 1


async def test_gateway_starts_without_its_store_and_serves_once_it_is_there(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    one = await start(upstream.url, store=redis_server.url)
    token = await one.token()
    redis_server.kill()
    late = await start(upstream.url, store=redis_server.url)
    assert await use(late, token, "/public") == 200
    assert await use(late, token) == 503
    redis_server.start()
    async with within():
        while await use(late, token) != 200:
            await asyncio.sleep(0.02)
    # `late` knows that Redis is back; `one` may still be waiting to look again.
    await revoke(late, token)
    await refused(late, token)
    await refused(one, token)


@pytest.mark.parametrize("is_ready_without", [False, True])
async def test_readiness_without_a_store_is_what_the_operator_says(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer, is_ready_without: bool
) -> None:
    gateway = await start(
        upstream.url, store=redis_server.url, ready_without_store=is_ready_without
    )
    for is_up in (True, False):
        if not is_up:
            redis_server.kill()
        expected = 200 if is_up or is_ready_without else 503
        async with gateway.session.get(gateway.admin_url("/readyz")) as response:
            assert response.status == expected
        async with gateway.session.get(gateway.admin_url("/healthz")) as response:
            assert response.status == 200
