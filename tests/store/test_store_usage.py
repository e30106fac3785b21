"""Looking for clients, and what is known of their use, in every store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.provider import Clock
from support.stores.values import make_client, make_token

from gateway.oauth.models import (
    AccessToken,
    ClientUsage,
    Store,
    StoreUnavailableError,
    digest_token,
)
from gateway.oauth.usage import MAX_CLIENTS, UsageTracker
from gateway.store.redis import usage as redis_usage
from gateway.store.transfer import TransferableStore


async def search(store: Store, text: str, *, after: str = "", limit: int = 100) -> list[str]:
    found = await store.usage.search_clients(text, after=after, limit=limit)
    return [client.client_id for client in found]


async def test_clients_are_found_by_a_part_of_id_or_name_whatever_its_case(store: Store) -> None:
    for client_id, name in (
        ("billing", "Invoices"), ("shop-1", "The Shop"), ("x", "SHOPPING 100%"), ("ü", "Übung"),
    ):  # fmt: skip
        await store.clients.add_client(replace(make_client(client_id), client_name=name))
    assert await search(store, "shop") == ["shop-1", "x"]
    assert await search(store, "SHOP-") == ["shop-1"]
    assert await search(store, "voice") == ["billing"]
    assert await search(store, "Übung") == ["ü"]
    assert await search(store, "0%") == ["x"]
    assert await search(store, "_") == []


async def test_search_goes_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_usage, "LOOK_AT", 7)
    for number in range(40):
        kind = "shop" if number % 3 == 0 else "till"
        await store.clients.add_client(
            replace(make_client(f"client-{number:02}"), client_name=f"{kind} {number}")
        )
    seen: list[str] = []
    while page := await search(store, "shop", after=seen[-1] if seen else "", limit=4):
        assert len(page) <= 4
        seen += page
    assert seen == [f"client-{number:02}" for number in range(0, 40, 3)]


async def test_use_of_a_client_adds_up_and_goes_with_it(store: Store) -> None:
    await store.clients.add_client(make_client())
    await store.clients.add_client(make_client("other"))
    assert await store.usage.client_usage(["shop", "nobody"]) == {}
    await store.usage.record_usage([ClientUsage("shop", None, 2), ClientUsage("nobody", 5.0, 1)])
    await store.usage.record_usage([ClientUsage("shop", 30.5, 1), ClientUsage("other", 7.0)])
    await store.usage.record_usage([ClientUsage("shop", 20.5)])
    known = await store.usage.client_usage(["shop", "other", "nobody"])
    assert known == {"shop": ClientUsage("shop", 30.5, 3), "other": ClientUsage("other", 7.0, 0)}
    kept = await store.clients.get_client("shop")
    assert kept == make_client()
    await store.clients.delete_client("shop")
    await store.clients.add_client(make_client())
    assert "shop" not in await store.usage.client_usage(["shop"])


async def test_live_tokens_of_a_client_are_counted(store: Store, clock: Clock) -> None:
    await store.clients.add_client(make_client())
    assert await store.usage.count_tokens("nobody") == 0
    await store.tokens.add_token(make_token("one"), generation=7)
    await store.tokens.add_token(make_token("two", ends=clock.now + 10), generation=7)
    assert await store.usage.count_tokens("shop") == 2
    clock.now += 20
    assert await store.usage.count_tokens("shop") == 1
    await store.tokens.revoke_client_tokens("shop")
    assert await store.usage.count_tokens("shop") == 0


async def test_usage_tracker_sends_the_store_what_it_noted_once(store: Store, clock: Clock) -> None:
    await store.clients.add_client(make_client())
    ledger = UsageTracker(store.usage, wall_clock=clock)
    ledger.issued("shop")
    ledger.issued("shop")
    ledger.read(make_token())
    ledger.read(make_token(ends=clock.now))  # it has ended: showing it was no use
    await ledger.flush()
    await ledger.flush()
    assert (await store.usage.client_usage(["shop"]))["shop"] == ClientUsage("shop", clock.now, 2)


class _UnavailableStore:
    """A store that does not respond."""

    def __init__(self) -> None:
        self.reported: list[ClientUsage] = []
        self.is_up = False

    async def record_usage(self, usages: list[ClientUsage]) -> None:
        if not self.is_up:
            raise StoreUnavailableError("down")
        self.reported += usages


async def test_usage_tracker_keeps_what_the_store_did_not_receive_and_is_bounded() -> None:
    unavailable = _UnavailableStore()
    ledger = UsageTracker(unavailable)  # type: ignore[arg-type]
    for number in range(MAX_CLIENTS + 10):
        ledger.issued(f"client-{number}")
    with pytest.raises(StoreUnavailableError):
        await ledger.flush()
    unavailable.is_up = True
    await ledger.flush()
    assert len(unavailable.reported) == MAX_CLIENTS
    assert {usage.tokens_issued for usage in unavailable.reported} == {1}


async def test_live_tokens_of_a_client_are_listed_in_pages_by_their_end(
    store: TransferableStore, clock: Clock
) -> None:
    await store.content.import_clients([make_client(), make_client("other")])
    ends = [clock.now + 50.0 + number // 3 for number in range(12)]  # three end at each time
    tokens = [make_token(f"t{number}", ends=end) for number, end in enumerate(ends)]
    await store.content.import_tokens([
        *tokens, make_token("ended", ends=clock.now - 1), make_token("o", "other", ends=ends[0]),
    ])  # fmt: skip
    await store.tokens.revoke_token(digest_token("t5"))
    tokens.pop(5)
    expected = sorted(tokens, key=lambda token: (token.expires_at, token.digest))
    assert await store.usage.list_tokens("shop") == expected
    for size in (1, 2, 5):
        listed: list[AccessToken] = []
        while page := await store.usage.list_tokens(
            "shop", after=listed[-1] if listed else None, limit=size
        ):
            assert len(page) <= size
            listed += page
        assert listed == expected
    assert await store.usage.list_tokens("nobody") == []
    await store.tokens.revoke_client_tokens("shop")
    assert await store.usage.list_tokens("shop") == []
    assert len(await store.usage.list_tokens("other")) == 1
