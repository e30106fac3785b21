"""Everything from one store into another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes.redis import RedisCluster, RedisServer
from support.provider import Clock
from support.stores.opening import postgres_store, redis_store
from support.stores.values import make_client, make_record, make_token
from support.tiers import slow

from gateway.oauth.models import AccessToken, StoreUnavailableError, digest_token
from gateway.rate_limit import RateLimit
from gateway.store.postgresql.store import PostgresStore
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore
from gateway.store.transfer import (
    KIND,
    Transfer,
    TransferableStore,
    TransferError,
    is_unfinished,
)

TOKENS = 2600


@pytest.fixture
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, empty_redis: RedisServer
) -> AsyncIterator[tuple[TransferableStore, TransferableStore]]:
    """A source and a target of the kinds asked for."""
    opened: list[TransferableStore] = []
    for number, kind in enumerate(request.param):
        if kind == "sqlite":
            opened.append(SqliteStore(SqliteFile(tmp_path / f"{number}.db", wall_clock=clock)))
        elif kind == "redis":
            opened.append(redis_store(f"{empty_redis.url}?prefix=p{number}", clock))
        elif kind == "postgresql":
            url = request.getfixturevalue("empty_postgresql").url
            opened.append(postgres_store(url, clock))
        else:
            cluster: RedisCluster = request.getfixturevalue("shared_cluster")
            cluster.flush()
            opened.append(redis_store(cluster.url, clock))
    source, target = opened
    yield source, target
    for store in opened:
        await store.close()


async def fill(store: TransferableStore, *, odd: str = "\0") -> None:
    limited = replace(
        make_client("limited"), metadata={"å": [1, None]}, rate_limit=RateLimit(1, 2.0, 3)
    )
    await store.content.import_clients([make_client(), limited, make_client("never", ends=None)])
    owned = ("shop", "limited")
    tokens = [
        replace(make_token(f"t{n}", owned[n % 2]), claims={"n": n} if n % 3 else {})
        for n in range(TOKENS)
    ]
    await store.content.import_tokens([*tokens, make_token("orphan", "nobody")])
    await store.content.import_records(
        [replace(make_record(f"r:{n}{odd}"), version=n) for n in range(1, 1200)]
        + [make_record("k", kind="key", owner="", ends=None, value=bytes(range(256)))]
    )


FROM_CLUSTER = pytest.param(("cluster", "redis"), marks=slow("Redis Cluster"))
TO_CLUSTER = pytest.param(("redis", "cluster"), marks=slow("Redis Cluster"))
ROUTES = [
    ("sqlite", "redis"), ("redis", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "redis"),
    TO_CLUSTER, FROM_CLUSTER,
]  # fmt: skip


@pytest.mark.parametrize("stores", ROUTES, indirect=True)
async def test_everything_arrives_as_it_was(
    stores: tuple[TransferableStore, TransferableStore],
) -> None:
    source, target = stores
    # PostgreSQL holds all characters but one.
    has_postgres = any(isinstance(store, PostgresStore) for store in stores)
    odd = "\x01" if has_postgres else "\0"
    await fill(source, odd=odd)
    shown: dict[str, int] = {}
    transfer = Transfer(source, target, name="x", progress=shown.__setitem__, wall_clock=Clock())
    await transfer.copy()
    found = await transfer.verify()
    counts = {part: one.count for part, one in found.items()}
    assert counts == {"clients": 3, "tokens": TOKENS, "records": 1200}
    assert shown["tokens in the target"] == TOKENS
    assert await target.clients.list_clients() == await source.clients.list_clients()
    kept = await target.tokens.get_token(digest_token("t1"))
    assert kept == await source.tokens.get_token(digest_token("t1"))
    assert kept is not None
    assert (kept.claims, kept.rate_limit) == ({"n": 1}, RateLimit(1, 2.0, 3))
    assert await target.tokens.get_token(digest_token("orphan")) is None
    record = await target.records.get_record("code", f"r:7{odd}")
    assert record == replace(make_record(f"r:7{odd}"), version=7)
    # What was copied is as alive as the original.
    assert await target.tokens.revoke_client_tokens("shop") == TOKENS // 2
    assert await target.clients.delete_client("shop") == 0
    assert await target.records.list_records("code") == []


class Breaking:
    """A target that breaks after some batches of tokens."""

    def __init__(self, store: TransferableStore, batches: int) -> None:
        self._store = store
        self._batches = batches

    @property
    def content(self) -> Breaking:
        """The part that breaks."""
        return self

    def __getattr__(self, name: str) -> object:
        is_of_content = name.startswith(("import_", "scan_"))
        return getattr(self._store.content if is_of_content else self._store, name)

    async def import_tokens(self, tokens: list[AccessToken]) -> None:
        if not self._batches:
            raise StoreUnavailableError("gone")
        self._batches -= 1
        await self._store.content.import_tokens(tokens)


@pytest.mark.parametrize("stores", [("sqlite", "redis"), FROM_CLUSTER], indirect=True)
async def test_run_that_was_cut_off_is_taken_up(
    stores: tuple[TransferableStore, TransferableStore],
) -> None:
    source, target = stores
    await fill(source)
    with pytest.raises(StoreUnavailableError):
        await Transfer(source, Breaking(target, 1), name="x").copy()  # type: ignore[arg-type]
    places: list[tuple[str, int]] = []
    transfer = Transfer(
        source,
        target,
        name="x",
        progress=lambda part, done: places.append((part, done)),
        wall_clock=Clock(),
    )
    assert await transfer.is_begun()
    await transfer.copy()
    assert places[0][0] == "tokens", "the clients are done already"
    assert places[0][1] > 500, "and so is a batch of tokens"
    assert (await transfer.verify())["tokens"].count == TOKENS
    assert not await transfer.is_begun()
    assert await target.records.list_records(KIND) == []


@pytest.mark.parametrize("stores", [("sqlite", "redis"), ("redis", "sqlite")], indirect=True)
async def test_copy_that_is_not_like_the_original_is_reported(
    stores: tuple[TransferableStore, TransferableStore],
) -> None:
    source, target = stores
    await fill(source)
    transfer = Transfer(source, target, name="x", wall_clock=Clock())
    await transfer.copy()
    await target.tokens.revoke_token(digest_token("t1"))
    with pytest.raises(TransferError, match=f"tokens differ: {TOKENS} .* {TOKENS - 1} in the"):
        await transfer.verify()
    assert await transfer.is_begun()
    await target.content.import_tokens([replace(make_token("t1", "limited"), scopes=("b",))])
    with pytest.raises(TransferError, match=f"tokens differ: {TOKENS} .* {TOKENS} in the"):
        await transfer.verify()


@pytest.mark.parametrize("stores", [("sqlite", "redis")], indirect=True)
async def test_target_that_holds_something_else_is_left_alone(
    stores: tuple[TransferableStore, TransferableStore],
) -> None:
    source, target = stores
    await fill(source)
    await target.clients.add_client(make_client("theirs"))
    with pytest.raises(TransferError, match="expected an empty store"):
        await Transfer(source, target, name="x").copy()
    assert [client.client_id for client in await target.clients.list_clients()] == ["theirs"]


@pytest.mark.parametrize("stores", [("sqlite", "redis")], indirect=True)
async def test_what_is_about_to_end_is_copied_and_not_counted(
    stores: tuple[TransferableStore, TransferableStore], clock: Clock
) -> None:
    source, target = stores
    await source.clients.add_client(make_client())
    for name, ends in (("ended", -1.0), ("ending", 60.0), ("lives", 3600.0)):
        await source.tokens.add_token(make_token(name, ends=clock.now + ends), generation=7)
    transfer = Transfer(source, target, name="x", wall_clock=clock)
    await transfer.copy()
    assert (await transfer.verify())["tokens"].count == 1
    assert await target.tokens.get_token(digest_token("ending")) is not None


@pytest.mark.parametrize("stores", [("sqlite", "sqlite"), ("redis", "redis")], indirect=True)
async def test_half_of_a_transfer_is_known_as_such(
    stores: tuple[TransferableStore, TransferableStore],
) -> None:
    source, target = stores
    await fill(source)
    assert not await is_unfinished(target)
    with pytest.raises(StoreUnavailableError):
        await Transfer(source, Breaking(target, 1), name="x").copy()  # type: ignore[arg-type]
    assert await is_unfinished(target)
    transfer = Transfer(source, target, name="x")
    await transfer.copy()
    await transfer.verify()
    assert not await is_unfinished(target)
