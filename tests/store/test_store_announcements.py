"""What must reach every process is announced in the same step as it is done, or not done at all.

The log of changes is taken away: as for a process that ends between the two, and what comes second
does not happen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from support.provider import POLICY, Clock, CountingHasher
from support.stores.values import make_client, make_record, make_token

from gateway.oauth.api_keys import ApiKeys, KeySettings
from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.clients import ClientRegistry
from gateway.oauth.models import (
    Change,
    ClientChange,
    Store,
    StoreUnavailableError,
    TokenChange,
    digest_token,
)
from gateway.rate_limit import RateLimit
from gateway.store.postgresql.store import PostgresStore
from gateway.store.redis.store import RedisStore
from gateway.store.sqlite.store import SqliteStore

SHOP, TOKEN = ClientChange("shop"), TokenChange(digest_token("token"))
OPERATIONS: dict[str, tuple[Change, Callable[[Store], Awaitable[object]]]] = {
    "update_client": (
        SHOP, lambda store: store.clients.update_client(make_client(ends=None), generation=7)
    ),
    "set_client_secret": (SHOP, lambda store: store.clients.set_client_secret("shop", "other")),
    "set_client_rate_limit": (
        SHOP, lambda store: store.clients.set_client_rate_limit("shop", RateLimit(1, 1.0, 1))
    ),
    "replace_client": (SHOP, lambda store: store.clients.replace_client(make_client())),
    "delete_client": (SHOP, lambda store: store.clients.delete_client("shop")),
    "revoke_client_tokens": (SHOP, lambda store: store.tokens.revoke_client_tokens("shop")),
    "revoke_token": (TOKEN, lambda store: store.tokens.revoke_token(TOKEN.digest)),
    "delete_record": (SHOP, lambda store: store.records.delete_record("code", "key", change=SHOP)),
    "delete_record of a token": (
        TOKEN, lambda store: store.records.delete_record("code", "key", change=TOKEN)
    ),
    "swap_record": (
        SHOP,
        lambda store: store.records.swap_record(
            make_record(), make_record(value=b"new"), change=SHOP
        ),
    ),
}  # fmt: skip


async def take_log_away(store: Store) -> None:
    if isinstance(store, SqliteStore):
        rename = "ALTER TABLE changes RENAME TO changes_away"
        await store._file.write("ping", lambda db: db.execute(rename).rowcount, is_durable=True)
    elif isinstance(store, PostgresStore):
        await store._calls.value("ping", "ALTER TABLE gateway.changes RENAME TO changes_away")
    else:
        assert isinstance(store, RedisStore)
        log = store._calls.keys.root + "changes"
        await store._calls.run("ping", lambda redis: redis.set(log, "no stream"))


async def state(store: Store) -> list[object]:
    return [
        await store.clients.get_client("shop"),
        await store.tokens.get_token(TOKEN.digest),
        await store.records.get_record("code", "key"),
    ]


@pytest.fixture
async def shop(store: Store) -> Store:
    """A store with a client, a token and a record."""
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(), generation=7)
    await store.records.add_record(make_record())
    return store


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_change_is_in_the_log_when_it_is_done(shop: Store, operation: str) -> None:
    change, run = OPERATIONS[operation]
    cursor, _ = await shop.changes_since(None)
    before = await state(shop)
    assert await run(shop)
    assert (await shop.changes_since(cursor))[1] == [change]
    assert await state(shop) != before


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_change_that_cannot_be_announced_is_not_made(
    shop: Store, operation: str, request: pytest.FixtureRequest
) -> None:
    _, run = OPERATIONS[operation]
    before = await state(shop)
    await take_log_away(shop)
    with pytest.raises(StoreUnavailableError):
        await run(shop)
    if operation == "revoke_token" and "redis-cluster" in request.node.name:
        # Two hash slots are two steps: it can be repeated, and is not accepted meanwhile.
        before[1] = None
    assert await state(shop) == before


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_what_finds_nothing_to_change_announces_nothing(store: Store, operation: str) -> None:
    cursor, _ = await store.changes_since(None)
    await OPERATIONS[operation][1](store)
    assert (await store.changes_since(cursor))[1] == []


async def test_key_whose_end_cannot_be_announced_works_on(shop: Store, clock: Clock) -> None:
    keys = ApiKeys(shop, wall_clock=clock)
    made = await keys.create("shop", KeySettings("k"))
    assert made is not None
    await take_log_away(shop)
    for end in (
        lambda: keys.revoke("shop", made.key.key_id),
        lambda: keys.rotate("shop", made.key.key_id),
        lambda: keys.rotate("shop", made.key.key_id, overlap_s=60.0),
    ):
        with pytest.raises(StoreUnavailableError):
            await end()
        assert await keys.find(made.value) == made.key


async def test_client_whose_change_cannot_be_announced_stays_as_it_is(
    shop: Store, clock: Clock
) -> None:
    hasher = CountingHasher(clock)
    registry = ClientRegistry(shop, POLICY, hasher, wall_clock=clock)
    await registry.rotate_secret("shop", client_secret="first")
    await registry.rotate_secret("shop", client_secret="second", overlap_s=60.0)
    client = await shop.clients.get_client("shop")
    assert client is not None
    assert metadata_of(client).previous_secret(clock.now)
    await take_log_away(shop)
    for change in (
        lambda: registry.update_client("shop", scopes=("orders:read",)),
        lambda: registry.rotate_secret("shop", client_secret="third"),
        lambda: registry.end_overlap("shop"),
        lambda: registry.delete_client("shop"),
    ):
        with pytest.raises(StoreUnavailableError):
            await change()
        assert await shop.clients.get_client("shop") == client
    await hasher.close()
