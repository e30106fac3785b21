"""What every store promises about records: small values that end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.provider import Clock
from support.stores.values import make_client, make_record, make_token

from gateway.oauth.models import Purged, Record, Store, client_owner, user_owner


@pytest.mark.parametrize(
    "record",
    [
        make_record(),
        make_record(ends=None),
        make_record("a'b\"c:{x}å", kind="k", owner=user_owner("ålice"), value=bytes(range(256))),
        make_record(value=b""),
    ],
)
async def test_record_comes_back_as_it_was_kept(store: Store, record: Record) -> None:
    assert await store.records.add_record(record) is True
    assert await store.records.get_record(record.kind, record.key) == record
    assert await store.records.get_record("other", record.key) is None
    assert await store.records.get_record(record.kind, "other") is None


def test_record_does_not_show_its_value() -> None:
    assert "value" not in repr(make_record())


async def test_key_is_taken_once_until_its_record_ends(store: Store, clock: Clock) -> None:
    first = make_record(ends=clock.now + 60)
    assert await store.records.add_record(first) is True
    assert await store.records.add_record(make_record(value=b"thief")) is False
    assert await store.records.get_record("code", "key") == first
    clock.now += 60
    second = make_record(value=b"second", ends=clock.now + 60)
    assert await store.records.add_record(second) is True
    assert await store.records.get_record("code", "key") == second


async def test_of_many_who_add_a_key_one_succeeds(store: Store) -> None:
    added = await asyncio.gather(
        *(store.records.add_record(make_record(value=str(n).encode())) for n in range(50))
    )
    assert added.count(True) == 1
    kept = await store.records.get_record("code", "key")
    assert kept is not None
    assert kept.value == str(added.index(True)).encode()


async def test_record_that_ended_is_never_returned(store: Store, clock: Clock) -> None:
    record = make_record(ends=clock.now + 60)
    await store.records.add_record(record)
    clock.now += 60
    assert await store.records.get_record("code", "key") is None
    assert await store.records.list_records("code") == []
    assert await store.records.list_records("code", owner="client:shop") == []
    assert await store.records.swap_record(record, record) is False
    assert await store.records.delete_owned_records("code", "client:shop") == 0
    await store.records.put_record(record)
    assert await store.records.delete_record("code", "key") is False
    await store.records.put_record(record)
    assert await store.records.take_record("code", "key") is None


async def test_of_many_who_take_a_record_exactly_one_gets_it(store: Store) -> None:
    await store.records.add_record(make_record())
    taken = await asyncio.gather(*(store.records.take_record("code", "key") for _ in range(50)))
    assert [record for record in taken if record is not None] == [make_record()]
    assert await store.records.take_record("code", "key") is None
    assert await store.records.add_record(make_record()) is True, "the key is free again"


async def test_put_replaces_and_raises_the_version(store: Store) -> None:
    assert await store.records.put_record(make_record()) == make_record()
    new = make_record(value=b"new", owner="user:alice", ends=None)
    assert await store.records.put_record(new) == replace(new, version=2)
    assert await store.records.get_record("code", "key") == replace(new, version=2)
    assert await store.records.list_records("code", owner="client:shop") == [], (
        "it has another owner"
    )
    assert await store.records.list_records("code", owner="user:alice") == [replace(new, version=2)]


async def test_swap_succeeds_only_for_who_saw_the_latest(store: Store) -> None:
    old = make_record()
    await store.records.add_record(old)
    assert await store.records.swap_record(old, replace(old, value=b"1")) is True
    kept = await store.records.get_record("code", "key")
    assert kept == replace(old, value=b"1", version=2)
    assert await store.records.swap_record(old, replace(old, value=b"2")) is False
    assert await store.records.get_record("code", "key") == kept
    swapped = await asyncio.gather(
        *(store.records.swap_record(kept, replace(kept, value=str(n).encode())) for n in range(50))
    )
    assert swapped.count(True) == 1


async def test_swap_moves_owner_and_end(store: Store, clock: Clock) -> None:
    old = make_record()
    await store.records.add_record(old)
    new = replace(old, owner="user:alice", expires_at=clock.now + 60)
    assert await store.records.swap_record(old, new) is True
    assert await store.records.list_records("code", owner="client:shop") == []
    assert await store.records.list_records("code", owner="user:alice") == [replace(new, version=2)]
    clock.now += 60
    assert await store.records.get_record("code", "key") is None


async def test_record_of_a_key_that_was_freed_and_taken_again_is_not_swapped(store: Store) -> None:
    old = make_record()
    await store.records.add_record(old)
    await store.records.delete_record("code", "key")
    assert await store.records.swap_record(old, old) is False
    await store.records.add_record(replace(old, value=b"another"))
    assert await store.records.swap_record(old, replace(old, value=b"mine")) is False


async def test_record_is_deleted_once(store: Store) -> None:
    await store.records.add_record(make_record())
    assert await store.records.delete_record("code", "key") is True
    assert await store.records.delete_record("code", "key") is False
    assert await store.records.get_record("code", "key") is None
    assert await store.records.list_records("code", owner="client:shop") == []


async def test_records_of_one_owner_and_kind_are_deleted_together(store: Store) -> None:
    for number in range(3):
        await store.records.add_record(make_record(f"mine-{number}"))
    spared = [
        make_record("other kind", kind="session"),
        make_record("other owner", owner=user_owner("shop")),
    ]
    for record in spared:
        await store.records.add_record(record)
    assert await store.records.delete_owned_records("code", client_owner("shop")) == 3
    assert await store.records.delete_owned_records("code", client_owner("shop")) == 0
    for record in spared:
        assert await store.records.get_record(record.kind, record.key) == record
    assert await store.records.get_record("code", "mine-0") is None


async def test_records_are_listed_in_pages_and_by_owner(store: Store) -> None:
    for number in range(25):
        owner = client_owner("even" if number % 2 == 0 else "odd")
        await store.records.add_record(make_record(f"r-{number:02}", owner=owner))
    await store.records.add_record(make_record("r-99", kind="other"))
    cases: list[tuple[str | None, range]] = [(None, range(25)), ("client:even", range(0, 25, 2))]
    for wanted, numbers in cases:
        seen: list[str] = []
        while page := await store.records.list_records(
            "code", after=seen[-1] if seen else "", limit=10, owner=wanted
        ):
            assert len(page) <= 10
            seen += [record.key for record in page]
        assert seen == [f"r-{number:02}" for number in numbers]


async def test_records_are_listed_by_code_point(store: Store) -> None:
    keys = ["Z", "a", "aa", "z", "å", "\U0001f600"]
    for key in reversed(keys):
        await store.records.add_record(make_record(key))
    assert [record.key for record in await store.records.list_records("code")] == keys


@pytest.mark.parametrize("way", ["delete", "replace", "purge"])
async def test_client_takes_its_records_of_every_kind_along(
    store: Store, clock: Clock, way: str
) -> None:
    await store.clients.add_client(make_client(ends=500.0))
    await store.clients.add_client(make_client("sho"))
    await store.records.add_record(make_record("a"))
    await store.records.add_record(make_record("b", kind="consent", ends=None))
    spared = make_record("c", owner=client_owner("sho"))
    await store.records.add_record(spared)
    if way == "delete":
        await store.clients.delete_client("shop")
    elif way == "replace":
        await store.clients.replace_client(make_client())
    else:
        await store.purge(tokens_before=0, clients_before=600.0)
    assert await store.records.get_record("code", "a") is None
    assert await store.records.get_record("consent", "b") is None
    assert await store.records.list_records("consent") == []
    assert await store.records.get_record("code", "c") == spared


async def test_purge_keeps_records_that_live(store: Store, clock: Clock) -> None:
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(), generation=7)
    lives = [make_record("lives", ends=clock.now + 600), make_record("never", ends=None)]
    for record in [*lives, make_record("ends", ends=clock.now + 60)]:
        await store.records.add_record(record)
    clock.now += 61
    purged = await store.purge(tokens_before=clock.now, clients_before=0)
    assert (purged.tokens, purged.clients) == (0, 0)
    assert await store.records.list_records("code") == lives
    assert await store.purge(tokens_before=clock.now, clients_before=0) == Purged(0, 0, 0)


async def test_time_of_the_store_goes_on(store: Store) -> None:
    first = await store.records.now()
    assert first > 0
    assert await store.records.now() >= first
