"""What Redis loses, or is set up to lose: hashes, counters, the time."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.processes.redis import RedisServer
from support.stores.values import make_client, make_record, make_token

from gateway.oauth.models import ClientChange, StoreRejectedError, TokenChange
from gateway.rate_limit import Demand, RateLimit
from gateway.store import open_rate_limits, open_store
from gateway.store.redis.store import RedisStore

SEQUENCE = "{gateway}:changes:seq"


@pytest.fixture
async def redis(empty_redis: RedisServer) -> AsyncIterator[RedisStore]:
    store = await open_store(empty_redis.url)
    assert isinstance(store, RedisStore)
    yield store
    await store.close()


async def test_evicted_client_is_left_out_logged_and_cleaned_up(
    redis: RedisStore, empty_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    for client_id in ("a", "b", "c", "d", "e"):
        await redis.clients.add_client(make_client(client_id, ends=2_000.0))
    await redis.records.add_record(make_record(owner="client:b", ends=None))
    empty_redis.control.delete("{gateway}:client:b", "{gateway}:client:c", "{gateway}:client:e")
    # A full page, though some of what it would hold is gone: who pages goes by its length.
    assert [client.client_id for client in await redis.clients.list_clients(limit=2)] == ["a", "d"]
    assert [client.client_id for client in await redis.clients.list_clients(limit=100)] == [
        "a",
        "d",
    ]
    assert [client.client_id for client in await redis.usage.search_clients("name")] == ["a", "d"]
    found = await redis.clients.expiring_clients(now=1_000.0, before=3_000.0)
    assert [client.client_id for client in found] == ["a", "d"]
    census = await redis.clients.census(now=1_000.0, expiring_before=3_000.0)
    assert (census.total, census.expiring) == (2, 2)
    assert await redis.records.list_records("code") == []
    assert "maxmemory-policy" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    count = len(caplog.records)
    await redis.clients.list_clients(limit=100)
    assert len(caplog.records) == count, "once it is cleaned up, there is nothing to say"


@pytest.mark.parametrize("lost", [None, "3", "0"])
async def test_lost_counter_of_changes_costs_no_revocation(
    redis: RedisStore, empty_redis: RedisServer, lost: str | None
) -> None:
    await redis.clients.add_client(make_client())
    for _ in range(20):
        await redis.tokens.revoke_client_tokens("shop")
    cursor, _ = await redis.changes_since(None)
    assert cursor == 20
    if lost is None:
        empty_redis.control.delete(SEQUENCE)
    else:
        empty_redis.control.set(SEQUENCE, lost)  # restored from an older state
    again, changes = await redis.changes_since(cursor)
    assert (again, changes) == (20, []), "nobody has missed anything"
    await redis.tokens.revoke_client_tokens("shop")
    await redis.tokens.add_token(make_token(ends=4_000_000_000.0), generation=7)
    assert await redis.tokens.revoke_token(make_token().digest) is not None
    await redis.clients.set_client_rate_limit("shop", RateLimit(1, 1.0, 1))
    await redis.clients.delete_client("shop")
    newest, changes = await redis.changes_since(cursor)
    assert newest == 24
    digest = make_token().digest
    client = ClientChange("shop")
    assert changes == [client, TokenChange(digest), client, client]


async def test_lost_log_of_changes_is_a_gap(redis: RedisStore, empty_redis: RedisServer) -> None:
    await redis.clients.add_client(make_client())
    for _ in range(5):
        await redis.tokens.revoke_client_tokens("shop")
    cursor, _ = await redis.changes_since(None)
    empty_redis.control.delete("{gateway}:changes")
    await redis.tokens.revoke_client_tokens("shop")
    newest, changes = await redis.changes_since(cursor)
    assert (newest, changes) == (6, [ClientChange("shop")])
    empty_redis.control.delete("{gateway}:changes", SEQUENCE)
    assert (await redis.changes_since(newest))[1] is None


@pytest.mark.parametrize("operation", ["revoke_client_tokens", "delete_client", "replace_client"])
async def test_change_that_can_not_be_announced_changes_nothing(
    redis: RedisStore, empty_redis: RedisServer, operation: str
) -> None:
    client = make_client()
    await redis.clients.add_client(client)
    await redis.tokens.add_token(make_token(ends=4_000_000_000.0), generation=7)
    empty_redis.control.set("{gateway}:changes", "not a stream")
    argument = client if operation == "replace_client" else client.client_id
    part = redis.tokens if operation == "revoke_client_tokens" else redis.clients
    with pytest.raises(StoreRejectedError, match="WRONGTYPE"):
        await getattr(part, operation)(argument)
    assert await redis.tokens.get_token(make_token().digest) is not None
    assert await redis.clients.get_client("shop") == client


async def test_revocation_that_is_in_doubt_is_forgotten_here_all_the_same(
    empty_redis: RedisServer, stack: AsyncExitStack
) -> None:
    reported: list[object] = []
    store = await open_store(empty_redis.url, on_change=reported.append)
    stack.push_async_callback(store.close)
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(ends=4_000_000_000.0), generation=7)
    # The token is marked, then the announcement fails.
    empty_redis.control.set("{gateway}:changes", "not a stream")
    with pytest.raises(Exception, match="Redis"):
        await store.tokens.revoke_token(make_token().digest)
    assert reported == [TokenChange(make_token().digest)]
    empty_redis.control.delete("{gateway}:changes")
    assert await store.tokens.revoke_token(make_token().digest) is not None


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what a test opens, whatever becomes of the test."""
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
def evicting(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, "--maxmemory-policy", "allkeys-lru").start()
    yield server
    server.stop()


async def test_policy_that_drops_clients_is_a_hazard(
    evicting: RedisServer, redis: RedisStore, stack: AsyncExitStack
) -> None:
    store = await open_store(evicting.url)
    stack.push_async_callback(store.close)
    (hazard,) = await store.find_hazards()
    assert "maxmemory-policy allkeys-lru" in hazard
    assert "noeviction" in hazard
    assert await redis.find_hazards() == []
    evicting.fetch("ACL", "SETUSER", "limited", "on", ">x", "~*", "&*", "+@all", "-info")
    limited = await open_store(evicting.url.replace("redis://", "redis://limited:x@"))
    stack.push_async_callback(limited.close)
    assert await limited.find_hazards() == []


async def test_clock_of_redis_that_goes_back_does_not_keep_a_limit_full(
    empty_redis: RedisServer, stack: AsyncExitStack
) -> None:
    rates = open_rate_limits(empty_redis.url)
    assert rates is not None
    stack.push_async_callback(rates.close)
    demand = Demand("client:shop", "", RateLimit(1, 0.2, 1))
    assert (await rates.acquire([demand])).is_allowed
    (key,) = empty_redis.all_keys()
    # As after a failover to a server whose clock is an hour behind.
    seconds, _ = empty_redis.control.time()
    empty_redis.control.set(key, f"1.000000000@{(seconds + 3600) * 1_000_000}", px=3_600_000)
    quota = await rates.acquire([demand])
    assert not quota.is_allowed
    kept = empty_redis.control.get(key)
    assert isinstance(kept, bytes)
    assert int(kept.partition(b"@")[2]) <= (seconds + 60) * 1_000_000, "it leaks from now on"


async def test_records_of_a_client_are_deleted_in_batches(
    redis: RedisStore, empty_redis: RedisServer
) -> None:
    for operation in ("delete_client", "delete_owned_records", "replace_client"):
        await redis.content.import_clients([make_client()])
        records = [make_record(f"r{number}", ends=None) for number in range(1_300)]
        await redis.content.import_records(
            [*records, make_record("other", owner="user:x", ends=None)]
        )
        empty_redis.control.config_resetstat()
        if operation == "delete_client":
            await redis.clients.delete_client("shop")
        elif operation == "replace_client":
            await redis.clients.replace_client(make_client())
        else:
            assert await redis.records.delete_owned_records("code", "client:shop") == 1_300
        assert [one.key for one in await redis.records.list_records("code")] == ["other"]
        # Each is a moment in which Redis does nothing else.
        assert empty_redis.count_calls("evalsha") + empty_redis.count_calls("eval") >= 3
        assert not empty_redis.control.exists("{gateway}:owned:client:shop")
