"""What a call of a store costs grows at most linearly with what is stored, and what clients cause
not at all.

Counted are instructions of SQLite's and commands of Redis', those within scripts included.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from support.growth import assert_linear
from support.processes.redis import RedisServer
from support.provider import Clock
from support.stores.values import make_client, make_record, make_token

from gateway.oauth.models import Client, ClientUsage, Record, client_owner
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.link import RedisLink
from gateway.store.redis.store import RedisStore
from gateway.store.redis.tokens import FORGET_BATCH
from gateway.store.sqlite.store import SqliteStore
from gateway.store.transfer import TransferableStore
from gateway.store_url import RedisUrl, parse_store_url

N = 60
NUMBERS = itertools.count()
FAR = 4_000_000_000.0
NOW = 1_000_000.0
STEP = 20
"""Instructions of SQLite's per count."""


class Meter:
    """Counts what a store does."""

    def __init__(self, store: TransferableStore, server: RedisServer | None) -> None:
        self._store = store
        self._server = server
        self._steps = 0

    async def measure(self, work: Callable[[], Awaitable[object]]) -> int:
        """How many instructions or commands `work` takes."""
        if self._server is not None:
            before = self._commands()
            await work()
            return self._commands() - before
        assert isinstance(self._store, SqliteStore)
        file = self._store._file
        while len(file.readers.connections) < len(file.readers.threads):
            await asyncio.gather(*(self._store.ping() for _ in range(8)))  # which starts threads
        connections = [file.writer._connection, *file.readers.connections]
        for connection in connections:
            connection.set_progress_handler(self._count, STEP)
        self._steps = 0
        await work()
        for connection in connections:
            connection.set_progress_handler(None, 0)
        return self._steps + 1

    def _count(self) -> int:
        self._steps += 1
        return 0

    def _commands(self) -> int:
        assert self._server is not None
        stats: dict[str, Any] = self._server.control.info("commandstats")
        return sum(one["calls"] for name, one in stats.items() if name != "cmdstat_info")


def client(number: int, **changes: Any) -> Client:
    return replace(make_client(f"c{number:05}", ends=FAR), **changes)


async def fill(store: TransferableStore, n: int) -> None:
    """`n` clients of which most have expired, tokens of one client, records of it, changes."""
    await store.content.import_clients(
        [make_client("many", ends=FAR), make_client("new", ends=FAR)]
    )
    await store.content.import_clients([client(number, expires_at=NOW - 9) for number in range(n)])
    tokens = [make_token(f"t{number}", "many", ends=FAR) for number in range(n)]
    await store.content.import_tokens(tokens)
    await store.content.import_tokens(
        [make_token(f"old{number}", "new", ends=NOW - 9) for number in range(n)]
    )
    owner = client_owner("many")
    await store.content.import_records(
        [make_record(f"r{number:05}", owner=owner, ends=None) for number in range(n)]
    )
    await store.content.import_records(
        [make_record(f"e{number:05}", kind="old", owner=owner, ends=NOW + 1) for number in range(n)]
    )


Call = Callable[[TransferableStore], Awaitable[object]]


def new_record(key: str = "new") -> Record:
    return make_record(key, ends=FAR)


CONSTANT: dict[str, Call] = {
    "get_token": lambda store: store.tokens.get_token(make_token("t5").digest),
    "unknown_token": lambda store: store.tokens.get_token(make_token("none").digest),
    "add_token": lambda store: store.tokens.add_token(
        make_token(f"fresh{next(NUMBERS)}", "many", ends=FAR), generation=7
    ),
    "revoke_token": lambda store: store.tokens.revoke_token(make_token("t5").digest),
    "get_client": lambda store: store.clients.get_client("c00005"),
    "add_client": lambda store: store.clients.add_client(make_client(f"fresh{next(NUMBERS)}")),
    "set_secret": lambda store: store.clients.set_client_secret("many", "hash"),
    "set_rate_limit": lambda store: store.clients.set_client_rate_limit("many", None),
    "first_page_of_clients": lambda store: store.clients.list_clients(limit=10),
    "expiring_clients": lambda store: store.clients.expiring_clients(now=NOW - 10, before=NOW),
    "add_record": lambda store: store.records.add_record(new_record()),
    "put_record": lambda store: store.records.put_record(new_record("r00005")),
    "take_record": lambda store: store.records.take_record("code", "r00005"),
    "first_page_of_records": lambda store: store.records.list_records("code", limit=10),
    "records_of_an_owner": lambda store: store.records.list_records(
        "code", limit=10, owner=client_owner("many")
    ),
    "usage_of_a_client": lambda store: store.usage.client_usage(["many"]),
    "record_usage": lambda store: store.usage.record_usage([ClientUsage("many", NOW, 1)]),
    "ping": lambda store: store.ping(),
    "no_news": lambda store: store.changes_since(None),
}
LINEAR: dict[str, Call] = {
    "revoke_client_tokens": lambda store: store.tokens.revoke_client_tokens("many"),
    "delete_client": lambda store: store.clients.delete_client("many"),
    "replace_client": lambda store: store.clients.replace_client(make_client("many")),
    "delete_owned_records": lambda store: store.records.delete_owned_records(
        "code", client_owner("many")
    ),
    "records_that_have_ended": lambda store: store.records.list_records("old", limit=10),
    "census": lambda store: store.clients.census(now=NOW, expiring_before=FAR),
    "count_tokens": lambda store: store.usage.count_tokens("many"),
    "search_without_a_hit": lambda store: store.usage.search_clients("no such name"),
    "purge": lambda store: store.purge(tokens_before=NOW + 1, clients_before=NOW),
    "usage_of_all": lambda store: store.usage.record_usage(
        [ClientUsage(f"c{number:05}", NOW, 1) for number in range(N)]
    ),
    "news": lambda store: store.changes_since(0),
    "scan": lambda store: store.content.scan_tokens("", 1000),
}


async def cost(
    store: TransferableStore, server: RedisServer | None, clock: Clock, n: int, call: Call
) -> int:
    clock.now = NOW
    await fill(store, n)
    for number in range(n // 10):
        await store.tokens.revoke_client_tokens(f"c{number:05}")
    clock.now = NOW + 2
    return await Meter(store, server).measure(lambda: call(store))


@pytest.fixture
def server(request: pytest.FixtureRequest, store: TransferableStore) -> RedisServer | None:
    """The server behind the store."""
    if isinstance(store, RedisStore):
        return request.getfixturevalue("shared_redis")  # type: ignore[no-any-return]
    return None


async def both(
    store: TransferableStore, server: RedisServer | None, clock: Clock, call: Call
) -> tuple[int, int]:
    at_n = await cost(store, server, clock, N, call)
    return at_n, await cost(store, server, clock, 4 * N, call)


one_store = pytest.mark.parametrize("store", ["sqlite", "redis"], indirect=True)


@one_store
@pytest.mark.parametrize("name", CONSTANT)
async def test_call_costs_the_same_however_much_is_stored(
    store: TransferableStore, server: RedisServer | None, clock: Clock, name: str
) -> None:
    at_n, at_4n = await both(store, server, clock, CONSTANT[name])
    assert at_4n <= 1.5 * at_n + 10, f"{at_n} grew to {at_4n}"


@one_store
@pytest.mark.parametrize("name", LINEAR)
async def test_call_costs_at_most_in_proportion_to_what_it_works_on(
    store: TransferableStore, server: RedisServer | None, clock: Clock, name: str
) -> None:
    assert_linear(*await both(store, server, clock, LINEAR[name]))


async def test_no_script_works_on_more_than_a_batch(empty_redis: RedisServer, clock: Clock) -> None:
    """Redis does nothing else while a script runs."""

    where = parse_store_url(empty_redis.url)
    assert isinstance(where, RedisUrl)
    store = RedisStore(RedisCalls(RedisLink(where, timeout_s=20.0), wall_clock=clock))
    await fill(store, 2_000)
    clock.now = NOW + 2
    control = empty_redis.control
    for name, call in LINEAR.items():
        if name in {"usage_of_all", "scan"}:
            continue
        control.config_resetstat()
        await call(store)
        stats: dict[str, Any] = control.info("commandstats")
        calls = {key.removeprefix("cmdstat_"): one["calls"] for key, one in stats.items()}
        scripts = calls.pop("evalsha", 0) + calls.pop("eval", 0)
        assert sum(calls.values()) <= 6_500 * max(scripts, 1), f"{name}: {calls}"
    await store.close()


async def test_tokens_that_expired_together_leave_the_index_bit_by_bit(
    empty_redis: RedisServer, clock: Clock
) -> None:

    where = parse_store_url(empty_redis.url)
    assert isinstance(where, RedisUrl)
    store = RedisStore(RedisCalls(RedisLink(where, timeout_s=20.0), wall_clock=clock))
    await store.clients.add_client(make_client(ends=FAR))
    await store.content.import_tokens([make_token(f"t{n}", ends=NOW + 9) for n in range(500)])
    (index,) = [key for key in empty_redis.all_keys() if b":tokens-of:" in key]
    clock.now = NOW + 10
    sizes = []
    for number in range(6):
        await store.tokens.add_token(make_token(f"new{number}", ends=FAR), generation=7)
        sizes.append(empty_redis.control.zcard(index))
    assert sizes[:2] == [501 - FORGET_BATCH, 502 - 2 * FORGET_BATCH]
    assert sizes[-1] == 6
    await store.close()
