"""What clients see while the store is in trouble, and once it is not.

Cached tokens go on; others get 503, never 401 and never a response of the upstream; and
everything is as before soon after the store is.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from support.deadlines import duration, scaled, until, within
from support.processes.redis import (
    RedisCluster,
    RedisServer,
    RedisWithSentinels,
)
from support.running_gateway import REGISTRATION_TOKEN, RunningGateway, StartGateway, basic
from support.servers.fault_proxy import FaultProxy
from support.servers.raw_upstream import RawUpstream
from support.stores.timeouts import set_store_timeouts
from support.tiers import slow

from gateway.oauth.models import Record, StoreError, digest_token
from gateway.store import open_store
from gateway.store.transfer import KIND


async def use(gateway: RunningGateway, token: str) -> int:
    """The status that a request with this token gets."""
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url("/api"), headers=headers) as response:
        assert (response.status == 503) == ("Retry-After" in response.headers)
        return response.status


async def request_token(gateway: RunningGateway) -> int:
    """The status that a request for a token gets."""
    async with gateway.session.post(
        gateway.url("/token"),
        data={"grant_type": "client_credentials"},
        headers=basic("tester", "secret"),
    ) as response:
        assert (response.status == 503) == ("Retry-After" in response.headers)
        return response.status


@pytest.fixture(autouse=True)
def impatience_with_stores(patience_with_stores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production: these tests wait for what times out."""
    set_store_timeouts(monkeypatch, store_s=1, rate_limits_s=0.25)


@pytest.fixture
def start(start: StartGateway) -> StartGateway:
    """With the default of `cache.ttl` as on an idle machine: what times out must not outlast it."""
    return partial(start, cache={"ttl": duration(60)})


async def recovers(call: Callable[[], Awaitable[int]], status: int = 200) -> None:
    """Wait for a status that calls the trouble over; until then, all is a 503.

    Once is not enough: each connection may be found to be lost only when it is used next, and a
    store that is back may be too slow for its deadline once more.
    """

    async def is_over() -> bool:
        got = await call()
        assert got in {status, 503}, "what the store would know was made up"
        return got == status

    await until(is_over)


async def is_refused(gateway: RunningGateway, token: str) -> bool:
    return await use(gateway, token) == 401


async def is_unavailable(gateway: RunningGateway, token: str) -> bool:
    return await use(gateway, token) == 503


async def create_client(gateway: RunningGateway) -> int:
    """The status of a registration."""
    async with gateway.session.post(
        gateway.url("/createClient"),
        json={"client_id": "tester", "client_secret": "secret"},
        headers={"Authorization": f"Bearer {REGISTRATION_TOKEN}"},
    ) as response:
        return response.status


async def see_it_through(
    gateway: RunningGateway,
    begin: Callable[[], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
    *,
    made_up: str = "made-up",
) -> None:
    """What holds in every kind of trouble."""
    cached, unread, later = [
        await gateway.token() if number == 0 else await gateway.get_token("tester")
        for number in range(3)
    ]
    assert await use(gateway, cached) == 200
    await begin()
    for _ in range(6):
        assert await use(gateway, cached) == 200
        assert await use(gateway, unread) == 503
        assert await use(gateway, made_up) == 503
    assert await request_token(gateway) == 503
    assert await gateway.metric("gateway_store_up") == 0
    async with gateway.session.get(gateway.admin_url("/readyz")) as response:
        assert response.status == 503
    await end()
    await recovers(lambda: use(gateway, unread))
    await recovers(lambda: use(gateway, later))
    await recovers(lambda: use(gateway, made_up), 401)
    await recovers(lambda: request_token(gateway))
    await until(lambda: gateway.metric("gateway_store_up"))


@asynccontextmanager
async def behind_proxy(server: RedisServer) -> AsyncIterator[tuple[FaultProxy, str]]:
    async with FaultProxy(server.port) as proxy:
        yield proxy, f"redis://127.0.0.1:{proxy.port}"


async def test_redis_killed_and_restarted(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    gateway = await start(upstream.url, store=redis_server.url)

    async def begin() -> None:
        redis_server.kill()

    async def end() -> None:
        redis_server.start()

    await see_it_through(gateway, begin, end)


async def test_redis_stopped_dead_while_its_connections_stay(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    gateway = await start(upstream.url, store=redis_server.url)

    async def begin() -> None:
        redis_server.pause()

    async def end() -> None:
        redis_server.resume()

    await see_it_through(gateway, begin, end)


async def test_redis_blackholed(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    async with behind_proxy(redis_server) as (proxy, url):
        gateway = await start(upstream.url, store=url)

        async def begin() -> None:
            proxy.drop()

        async def end() -> None:
            proxy.forward()

        await see_it_through(gateway, begin, end)
        await gateway.stop()


async def test_redis_responds_after_five_seconds(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    async with behind_proxy(redis_server) as (proxy, url):
        gateway = await start(upstream.url, store=url)

        async def begin() -> None:
            proxy.delay_s = scaled(5.0)

        async def end() -> None:
            proxy.delay_s = 0.0

        await see_it_through(gateway, begin, end)
        await gateway.stop()


async def test_redis_pauses_its_clients(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    gateway = await start(upstream.url, store=redis_server.url)
    token = await gateway.token()
    redis_server.control.client_pause(round(scaled(2500)))
    assert await use(gateway, token) == 503
    await recovers(lambda: use(gateway, token))


async def test_redis_restarted_empty_means_that_tokens_are_gone(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path).start()
    try:
        gateway = await start(upstream.url, store=server.url)
        token = await gateway.token()
        assert await use(gateway, token) == 200
        server.kill()
        assert await use(gateway, token) == 200
        server.start()
        await until(lambda: is_refused(gateway, token))
        await recovers(lambda: request_token(gateway), 401)
        await recovers(lambda: create_client(gateway), 201)
        await recovers(lambda: request_token(gateway))
    finally:
        server.stop()


async def test_sentinels_fail_over(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    servers = RedisWithSentinels(tmp_path)
    try:
        servers.start()
        gateway = await start(upstream.url, store=servers.url)
        cached, unread = await gateway.token(), await gateway.get_token("tester")
        assert await use(gateway, cached) == 200
        synced = servers.primary.control.wait(1, 5000)
        assert synced == 1
        servers.primary.kill()
        assert await use(gateway, cached) == 200
        assert await use(gateway, unread) == 503
        await recovers(lambda: use(gateway, unread))
        await recovers(lambda: request_token(gateway))
        assert servers.replica.control.role()[0] == b"master"
        await gateway.stop()
    finally:
        servers.stop()


@slow("Redis Cluster")
async def test_cluster_loses_a_node_and_gets_it_back(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    cluster = RedisCluster(tmp_path, is_durable=True)
    try:
        cluster.start()
        gateway = await start(upstream.url, store=cluster.url)
        node = cluster.node_of("{gateway}:")

        async def begin() -> None:
            node.kill()

        async def end() -> None:
            node.start()

        # The other nodes go on to tell that a token does not exist.
        made_up = next(
            token
            for token in map(str, range(1000))
            if cluster.node_of(f"gateway:token:{digest_token(token).hex()}") is node
        )
        await see_it_through(gateway, begin, end, made_up=made_up)
        await gateway.stop()
    finally:
        cluster.stop()


async def test_stale_tokens_are_believed_only_as_long_as_the_operator_says(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    brief = {"ttl": "50ms"}
    strict = await start(upstream.url, store=redis_server.url, cache=brief)
    lenient = await start(
        upstream.url, store=redis_server.url, cache=brief | {"stale_if_store_down": "1h"}
    )
    token = await strict.token()
    for gateway in (strict, lenient):
        assert await use(gateway, token) == 200
    redis_server.kill()
    await until(lambda: is_unavailable(strict, token))
    # Its own entry may be fresh for a moment yet.
    async with within():
        while not await lenient.metric("gateway_token_cache_lookups_total", result="stale"):
            assert await use(lenient, token) == 200
    assert await use(lenient, "made-up") == 503
    redis_server.start()
    await recovers(lambda: use(strict, token))


async def test_sqlite_locked_by_another_writer(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    gateway = await start(upstream.url)
    token = await gateway.token()
    other = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert await request_token(gateway) == 503
    assert await use(gateway, token) == 200, "readers do not wait for writers"
    assert await use(gateway, "made-up") == 401
    other.execute("ROLLBACK")
    other.close()
    assert await request_token(gateway) == 200


async def test_sqlite_damaged_while_running(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    gateway = await start(upstream.url)
    cached, unread = await gateway.token(), await gateway.get_token("tester")
    assert await use(gateway, cached) == 200
    connection = sqlite3.connect(tmp_path / "gateway.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with (tmp_path / "gateway.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * ((tmp_path / "gateway.db").stat().st_size - 4096))
    assert await use(gateway, cached) == 200
    assert await use(gateway, unread) == 503
    assert await use(gateway, "made-up") == 503
    assert await request_token(gateway) == 503


async def test_flood_of_unknown_tokens_neither_evicts_nor_piles_up(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    # Several times what is kept and what may be read at once. What is cached must not end by
    # itself on a busy machine.
    cache = {"max_entries": 500, "max_store_reads": 16, "ttl": "1h"}
    gateway = await start(upstream.url, store=redis_server.url, cache=cache)
    validator = gateway.gateway.validator
    valid = [await gateway.token()] + [await gateway.get_token("tester") for _ in range(50)]
    for token in valid:
        await validator.lookup(token)
    for wave in range(2):
        await asyncio.gather(
            *(validator.lookup(f"made-up-{wave}-{number}") for number in range(5000)),
            return_exceptions=True,
        )
        assert len(validator._refused) <= 500
        assert len(validator._reads) == 0
    # There, the flood may also be an outage, after which all that is cached is dropped at once.
    if not await gateway.metric("gateway_cache_sweeps_total"):
        assert all(validator.cached(token) is not None for token in valid)
    assert len(redis_server.control.client_list()) < 16 + 10
    # A flood on a slow machine is an outage.
    await recovers(lambda: request_token(gateway))


async def test_half_of_a_migration_is_not_served(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/gateway.db")
    await store.records.put_record(Record(KIND, "name", "", b"", None))
    await store.close()
    with pytest.raises(StoreError, match="gateway migrate"):
        await start(upstream.url)
