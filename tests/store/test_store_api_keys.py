"""API keys on each kind of store."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from support.provider import Clock
from support.stores.values import make_client

from gateway.oauth.api_keys import (
    LAST_USE_S,
    MAX_KEYS,
    RETENTION_S,
    ApiKey,
    ApiKeys,
    KeySettings,
    NewApiKey,
)
from gateway.oauth.errors import InvalidClientMetadataError, InvalidScopeError
from gateway.oauth.models import ClientChange, Record, Store, digest_token
from gateway.rate_limit import RateLimit


@pytest.fixture
def keys(store: Store, clock: Clock) -> ApiKeys:
    return ApiKeys(store, wall_clock=clock)


async def test_key_is_found_by_its_digest_with_what_its_client_has_now(
    store: Store, keys: ApiKeys, clock: Clock
) -> None:
    await store.clients.add_client(make_client())
    limit = RateLimit(10, 1.0, 20)
    all_of_it = await keys.create("shop", KeySettings("all", rate_limit=limit))
    part = await keys.create("shop", KeySettings("part", scopes=("b",), ttl_s=60.0))
    assert all_of_it is not None
    assert part is not None
    assert await keys.list("shop") == sorted(
        [all_of_it.key, part.key], key=lambda key: (key.created_at, key.key_id)
    )
    found = await keys.get_api_key(digest_token(all_of_it.value))
    assert found is not None
    assert (found.client_id, found.client_name, found.scopes) == ("shop", "shop name", ("a", "b"))
    assert (found.credential, found.key_id) == ("api_key", all_of_it.key.key_id)
    assert (found.key_limit, found.rate_limit) == (limit, None)
    assert found.expires_at == 2_000_000.0, "with its client"
    await store.clients.set_client_rate_limit("shop", limit)
    found = await keys.get_api_key(digest_token(part.value))
    assert found is not None
    assert (found.scopes, found.expires_at) == (("b",), clock.now + 60)
    assert (found.key_limit, found.rate_limit) == (None, limit)
    assert await keys.find(part.value) == part.key
    assert await keys.get_api_key(digest_token("bgk_unknown")) is None


async def test_key_has_no_scope_that_its_client_has_lost(store: Store, keys: ApiKeys) -> None:
    await store.clients.add_client(make_client())
    made = await keys.create("shop", KeySettings("k", scopes=("a", "b")))
    assert made is not None
    await store.clients.update_client(
        make_client().__class__("shop", "n", "h", ("b", "c"), 1.5, None, 7), generation=7
    )
    found = await keys.get_api_key(digest_token(made.value))
    assert found is not None
    assert found.scopes == ("b",)


async def test_key_that_expired_is_listed_for_a_while(
    store: Store, keys: ApiKeys, clock: Clock
) -> None:
    await store.clients.add_client(make_client(ends=None))
    made = await keys.create("shop", KeySettings("k", ttl_s=60.0))
    assert made is not None
    clock.now += 60
    assert made.key.is_expired(clock.now)
    assert await keys.list("shop") == [made.key]
    found = await keys.get_api_key(digest_token(made.value))
    assert found is not None
    assert found.expires_at <= clock.now
    clock.now += RETENTION_S
    assert await keys.list("shop") == []


async def test_revoked_key_is_gone_and_announced(store: Store, keys: ApiKeys) -> None:
    for client_id in ("shop", "other"):
        await store.clients.add_client(make_client(client_id))
    made = await keys.create("shop", KeySettings("k"))
    kept = await keys.create("shop", KeySettings("kept"))
    assert made is not None
    assert kept is not None
    cursor, _ = await store.changes_since(None)
    assert await keys.revoke("other", made.key.key_id) is None, "of another client"
    assert await keys.revoke("shop", made.key.key_id) == made.key
    assert await keys.revoke("shop", made.key.key_id) is None
    assert (await store.changes_since(cursor))[1] == [ClientChange("shop")]
    assert await keys.get_api_key(digest_token(made.value)) is None
    assert await keys.list("shop") == [kept.key]


async def test_keys_end_with_their_client_and_a_later_namesake_has_none(
    store: Store, keys: ApiKeys
) -> None:
    await store.clients.add_client(make_client())
    made = await keys.create("shop", KeySettings("k"))
    assert made is not None
    digest = digest_token(made.value)
    record = await store.records.get_record("api_key", digest.hex())
    assert record is not None
    await store.clients.delete_client("shop")
    assert await keys.get_api_key(digest) is None
    # As if it had been created while the client was deleted.
    await store.records.add_record(record)
    await store.clients.add_client(make_client().__class__("shop", "n", "h", ("a",), 99.0, None, 7))
    assert await keys.get_api_key(digest) is None
    assert await keys.create("nobody", KeySettings("k")) is None


async def test_two_keys_work_during_a_rotation_and_one_after_it(
    store: Store, keys: ApiKeys, clock: Clock
) -> None:
    await store.clients.add_client(make_client(ends=None))
    old = await keys.create("shop", KeySettings("k", scopes=("a",), ttl_s=86400.0))
    assert old is not None
    clock.now += 10
    new = await keys.rotate("shop", old.key.key_id, overlap_s=3600.0)
    assert new is not None
    assert (new.key.name, new.key.scopes) == ("k", ("a",))
    assert new.key.expires_at == clock.now + 86400
    ends = {key.key_id: key.expires_at for key in await keys.list("shop")}
    assert ends == {old.key.key_id: clock.now + 3600, new.key.key_id: clock.now + 86400}
    newest = await keys.rotate("shop", new.key.key_id)
    assert newest is not None
    assert [key.key_id for key in await keys.list("shop")] == [
        old.key.key_id, newest.key.key_id,
    ]  # fmt: skip
    assert await keys.rotate("shop", "unknown") is None


@pytest.mark.parametrize("overlap_s", [0.0, 3600.0])
@pytest.mark.parametrize("other", ["revoke", "rotate", "rotate with overlap"])
async def test_key_that_is_revoked_or_rotated_during_its_rotation_has_no_successor(
    store: Store, clock: Clock, other: str, overlap_s: float
) -> None:
    await store.clients.add_client(make_client(ends=None))
    keys = ApiKeys(store, wall_clock=clock)
    made = await keys.create("shop", KeySettings("k"))
    assert made is not None
    key_id = made.key.key_id
    meanwhile: list[NewApiKey | ApiKey | None] = []

    class Overtaken:
        """Records, among which something happens between the two steps of a rotation."""

        def __getattr__(self, name: str) -> object:
            return getattr(store.records, name)

        async def add_record(self, record: Record) -> bool:
            if other == "revoke":
                meanwhile.append(await keys.revoke("shop", key_id))
            else:
                until_s = 60.0 if "overlap" in other else 0.0
                meanwhile.append(await keys.rotate("shop", key_id, overlap_s=until_s))
            return await store.records.add_record(record)

    overtaken = cast(Store, SimpleNamespace(clients=store.clients, records=Overtaken()))
    slow = ApiKeys(overtaken, wall_clock=clock)
    assert await slow.rotate("shop", key_id, overlap_s=overlap_s) is None
    (done,) = meanwhile
    clock.now += 60
    left = [key for key in await keys.list("shop") if not key.is_expired(clock.now)]
    assert left == ([done.key] if isinstance(done, NewApiKey) else [])
    found = await keys.get_api_key(digest_token(made.value))
    assert found is None or found.expires_at <= clock.now


async def test_key_that_was_rotated_is_not_rotated_again(
    store: Store, keys: ApiKeys, clock: Clock
) -> None:
    """Its end is no longer that of its life, which a successor would have."""
    await store.clients.add_client(make_client(ends=None))
    old = await keys.create("shop", KeySettings("k"))
    assert old is not None
    assert await keys.rotate("shop", old.key.key_id, overlap_s=3600.0)
    with pytest.raises(InvalidClientMetadataError, match="was rotated already"):
        await keys.rotate("shop", old.key.key_id, overlap_s=3600.0)
    assert len(await keys.list("shop")) == 2


async def test_last_use_is_written_rarely_and_brings_no_revoked_key_back(
    store: Store, keys: ApiKeys, clock: Clock
) -> None:
    await store.clients.add_client(make_client(ends=None))
    made = await keys.create("shop", KeySettings("k"))
    assert made is not None
    digest = digest_token(made.value)

    async def use() -> tuple[float | None, int]:
        await keys.get_api_key(digest)
        await keys.flush()
        record = await store.records.get_record("api_key", digest.hex())
        (key,) = await keys.list("shop")
        assert record is not None
        return key.last_used, record.version

    first_use = clock.now
    assert await use() == (first_use, 2)
    clock.now += LAST_USE_S - 1
    assert await use() == (first_use, 2), "nothing was written"
    clock.now += 1
    assert await use() == (clock.now, 3)
    clock.now += LAST_USE_S
    await keys.get_api_key(digest)
    await keys.revoke("shop", made.key.key_id)
    await keys.flush()
    assert await keys.list("shop") == []


async def test_bad_settings_of_a_key_are_rejected(store: Store, keys: ApiKeys) -> None:
    await store.clients.add_client(make_client())
    for name in ("", "x" * 101, "a\nb"):
        with pytest.raises(InvalidClientMetadataError):
            await keys.create("shop", KeySettings(name))
    with pytest.raises(InvalidScopeError):
        await keys.create("shop", KeySettings("k", scopes=("c",)))


async def test_client_has_a_limited_number_of_keys(store: Store, keys: ApiKeys) -> None:
    await store.clients.add_client(make_client())
    for number in range(MAX_KEYS):
        assert await keys.create("shop", KeySettings(str(number)))
    with pytest.raises(InvalidClientMetadataError, match="at most 100 keys"):
        await keys.create("shop", KeySettings("one more"))
