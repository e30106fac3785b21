"""Families of refresh tokens on each kind of store, and by several processes on one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.processes.redis import RedisServer
from support.provider import POLICY, Clock, Provider
from support.refreshing import allow, begin, is_good, refresh, refresh_token, register

from gateway.oauth.models import Store
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.link import RedisLink
from gateway.store.redis.store import RedisStore
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore
from gateway.store.transfer import Transfer
from gateway.store_url import RedisUrl, parse_store_url


def open_redis(url: str, clock: Clock) -> RedisStore:
    where = parse_store_url(url)
    assert isinstance(where, RedisUrl)
    return RedisStore(RedisCalls(RedisLink(where, timeout_s=20.0), wall_clock=clock))


@pytest.fixture(params=["sqlite", "redis"])
async def processes(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[list[Provider]]:
    """Three providers with connections of their own to one store, and one client."""
    stores: list[SqliteStore | RedisStore] = []
    for _ in range(3):
        if request.param == "sqlite":
            stores.append(SqliteStore(SqliteFile(tmp_path / "store.db", wall_clock=clock)))
        else:
            server: RedisServer = request.getfixturevalue("empty_redis")
            stores.append(open_redis(server.url, clock))
    providers = [Provider(store, POLICY, clock) for store in stores]
    for provider in providers:
        allow(provider)
    await register(providers[0])
    yield providers
    for provider in providers:
        await provider.hasher.close()
        await provider.fetcher.close()
    for store in stores:
        await store.close()


async def test_of_uses_in_many_processes_one_rotates_the_token(processes: list[Provider]) -> None:
    value = refresh_token(await begin(processes[0].server))
    for _ in range(5):
        replies = await asyncio.gather(*(refresh(one, value) for one in processes * 2))
        assert {reply.status for reply in replies} == {200}
        (value,) = {reply.json["refresh_token"] for reply in replies}
        tokens = [reply.json["access_token"] for reply in replies]
        assert all([await is_good(processes[0], token) for token in tokens])


@pytest.mark.parametrize("apart_s", [3600.0, 0.0, -3600.0])
async def test_grace_for_repeated_use_is_by_the_clock_of_the_store(
    empty_redis: RedisServer, clock: Clock, apart_s: float
) -> None:
    # Which is that of Redis: the clocks of two replicas may be apart by more than the grace.
    clocks = [Clock(clock.now + ahead) for ahead in (0.0, apart_s)]
    stores = [open_redis(empty_redis.url, own) for own in clocks]
    one, other = map(Provider, stores, (POLICY, POLICY), clocks)
    for provider in (one, other):
        allow(provider, reuse_grace_s=60.0, ttl_s=86400.0)
    await register(one)
    value = refresh_token(await begin(one.server))
    first = await refresh(one, value)
    second = await refresh(other, value)
    assert (first.status, second.status) == (200, 200)
    assert first.json["refresh_token"] == second.json["refresh_token"]
    allow(other, reuse_grace_s=0.001, ttl_s=86400.0)
    reused = await refresh(other, value)
    assert reused.reason == "refresh_token_reused"
    for provider, store in zip((one, other), stores, strict=True):
        await provider.hasher.close()
        await provider.fetcher.close()
        await store.close()


async def test_of_uses_in_many_processes_one_wins_where_there_is_no_grace(
    processes: list[Provider],
) -> None:
    for one in processes:
        allow(one, reuse_grace_s=0.0)
    value = refresh_token(await begin(processes[0].server))
    replies = await asyncio.gather(*(refresh(one, value) for one in processes * 2))
    won = [reply for reply in replies if reply.status == 200]
    assert len(won) <= 1, "the others ended the family, maybe before the winner was answered"
    assert {reply.error for reply in replies if reply not in won} == {(400, "invalid_grant")}
    for reply in won:
        assert not await is_good(processes[2], reply.json["access_token"])
        assert (await refresh(processes[1], reply.json["refresh_token"])).status == 400


async def test_reusable_token_is_used_in_many_processes_at_once(processes: list[Provider]) -> None:
    for one in processes:
        allow(one, strategy="reusable")
    value = refresh_token(await begin(processes[0].server))
    replies = await asyncio.gather(*(refresh(one, value) for one in processes * 3))
    assert {reply.json["refresh_token"] for reply in replies} == {value}
    await processes[1].server.revoke_token(value)
    for reply in replies:
        assert not await is_good(processes[2], reply.json["access_token"])


async def test_no_access_token_gets_past_the_end_of_its_family(processes: list[Provider]) -> None:
    for _ in range(5):
        first = await begin(processes[0].server)
        value = refresh_token(first)
        *replies, revoked = await asyncio.gather(
            refresh(processes[0], value),
            refresh(processes[1], value),
            processes[2].server.revoke_token(first.access_token),
        )
        assert revoked == "shop"
        for reply in replies:
            if reply.status == 200:
                assert not await is_good(processes[2], reply.json["access_token"])
                value = reply.json["refresh_token"]
                assert (await refresh(processes[2], value)).error == (400, "invalid_grant")
            else:
                assert reply.error == (400, "invalid_grant")


async def test_family_ends_while_its_client_is_deleted(store: Store, clock: Clock) -> None:
    provider = Provider(store, POLICY, clock)
    allow(provider)
    await register(provider)
    first = await begin(provider.server)
    await provider.server.store.clients.delete_client("shop")
    assert await provider.server.refresh_tokens.find_family(refresh_token(first)) is None
    await register(provider)
    assert (await refresh(provider, refresh_token(first))).error == (400, "invalid_grant")


async def test_families_move_to_another_store(
    tmp_path: Path, clock: Clock, empty_redis: RedisServer
) -> None:
    clock.now = time.time()  # Redis has a clock of its own
    source = SqliteStore(SqliteFile(tmp_path / "store.db", wall_clock=clock))
    target = open_redis(empty_redis.url, clock)
    before, after = Provider(source, POLICY, clock), Provider(target, POLICY, clock)
    for one in (before, after):
        allow(one)
    await register(before)
    first = refresh_token(await begin(before.server))
    second = (await refresh(before, first)).json["refresh_token"]
    transfer = Transfer(source, target, name="test", wall_clock=clock)
    await transfer.copy()
    await transfer.verify()
    assert (await refresh(after, first)).json["refresh_token"] == second, "a lost response, too"
    clock.now += 60
    third = await refresh(after, second)
    assert third.status == 200
    assert await after.server.refresh_tokens.end_user("alice") == 1
    assert not await is_good(after, third.json["access_token"])
    for store in (source, target):
        await store.close()
