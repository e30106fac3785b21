"""The token cache: one read for many, three responses, and nothing remembered too long."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest
from support.deadlines import until
from support.provider import Clock, Provider

from gateway.metrics import Metrics
from gateway.oauth.access import Access, CachedToken
from gateway.oauth.bearer import read_bearer
from gateway.oauth.errors import (
    InsufficientScopeError,
    InvalidTokenError,
    MalformedTokenError,
    MissingTokenError,
)
from gateway.oauth.models import (
    AccessToken,
    ClientChange,
    StoreUnavailableError,
    TokenChange,
    digest_token,
)
from gateway.oauth.token_cache import TokenCache
from gateway.store.sqlite.store import SqliteStore


class GatedStore:
    """The look-ups of a real store, counted, and held back or failed as a test wants it."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.reads = 0
        self.is_down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def get_token(self, digest: bytes) -> AccessToken | None:
        self.reads += 1
        await self.gate.wait()
        if self.is_down:
            raise StoreUnavailableError("down")
        return await self.store.tokens.get_token(digest)


Issue = Callable[[str], Awaitable[str]]


@pytest.fixture
def gated(provider: Provider) -> GatedStore:
    assert isinstance(provider.store, SqliteStore)
    return GatedStore(provider.store)


@pytest.fixture
def validator(gated: GatedStore, provider: Provider) -> TokenCache:
    return make_validator(gated, provider.clock, provider.metrics)


def make_validator(
    gated: GatedStore, clock: Clock, metrics: Metrics, *, max_entries: int = 100
) -> TokenCache:
    return TokenCache(
        gated,
        metrics,
        max_entries=max_entries,
        ttl_s=60,
        negative_ttl_s=5,
        clock=clock,
        wall_clock=clock,
        render_identity=lambda token: token.client_id.encode(),
    )


@pytest.fixture
def issue(provider: Provider) -> Issue:
    async def issue_one(client_id: str = "shop") -> str:
        if await provider.server.store.clients.get_client(client_id) is None:
            await provider.server.register_client(client_id=client_id, client_secret="s")
        return (await provider.server.issue_token_to(client_id)).access_token

    return issue_one


async def test_second_look_up_does_not_ask_the_store(
    validator: TokenCache, gated: GatedStore, issue: Issue
) -> None:
    token = await issue("shop")
    assert validator.cached(token) is None
    entry = await validator.lookup(token)
    assert (entry.token.client_id, entry.identity) == ("shop", b"shop")
    assert validator.cached(token) is entry
    assert await validator.lookup(token) is entry
    assert gated.reads == 1


async def test_entry_ends_with_the_ttl_and_the_store_is_asked_again(
    validator: TokenCache, gated: GatedStore, issue: Issue, provider: Provider
) -> None:
    token = await issue("shop")
    await validator.lookup(token)
    provider.clock.now += 59.9
    assert validator.cached(token) is not None
    provider.clock.now += 0.1
    assert validator.cached(token) is None
    await validator.lookup(token)
    assert gated.reads == 2


async def test_entry_ends_with_the_token_if_that_is_sooner(
    validator: TokenCache, issue: Issue, provider: Provider
) -> None:
    token = await issue("shop")
    provider.clock.now += 3590
    await validator.lookup(token)
    provider.clock.now += 10
    assert validator.cached(token) is None
    with pytest.raises(InvalidTokenError) as refused:
        await validator.lookup(token)
    assert refused.value.reason == "expired"
    assert len(validator) == 0


async def test_many_waiters_make_one_read(
    validator: TokenCache, gated: GatedStore, issue: Issue
) -> None:
    token = await issue("shop")
    gated.gate.clear()
    waiters = [asyncio.create_task(validator.lookup(token)) for _ in range(500)]
    await asyncio.sleep(0)
    gated.gate.set()
    entries = await asyncio.gather(*waiters)
    assert gated.reads == 1
    assert len({id(entry) for entry in entries}) == 1


async def test_waiter_that_goes_away_does_not_fail_the_others(
    validator: TokenCache, gated: GatedStore, issue: Issue
) -> None:
    token = await issue("shop")
    gated.gate.clear()
    first = asyncio.create_task(validator.lookup(token))
    second = asyncio.create_task(validator.lookup(token))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gated.gate.set()
    assert (await second).token.client_id == "shop"
    assert gated.reads == 1


async def test_unknown_token_is_remembered_for_a_short_while(
    validator: TokenCache, gated: GatedStore, provider: Provider
) -> None:
    for _ in range(2):
        with pytest.raises(InvalidTokenError) as refused:
            await validator.lookup("made-up")
        assert refused.value.reason == "unknown"
    assert gated.reads == 1
    provider.clock.now += 5
    with pytest.raises(InvalidTokenError):
        await validator.lookup("made-up")
    assert gated.reads == 2


async def test_outage_is_no_verdict_and_is_not_remembered(
    validator: TokenCache, gated: GatedStore, issue: Issue
) -> None:
    known, unseen = await issue("shop"), await issue("shop")
    await validator.lookup(known)
    gated.is_down = True
    assert (await validator.lookup(known)).token.client_id == "shop"
    with pytest.raises(StoreUnavailableError):
        await validator.lookup(unseen)
    gated.is_down = False
    assert (await validator.lookup(unseen)).token.client_id == "shop"


async def test_outage_that_no_request_waits_for_any_more_is_not_an_unhandled_error(
    validator: TokenCache, gated: GatedStore
) -> None:
    gated.gate.clear()
    gated.is_down = True
    waiter = asyncio.create_task(validator.lookup("x"))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    gated.gate.set()
    with pytest.raises(StoreUnavailableError):
        await validator.lookup("x")


async def test_flood_of_unknown_tokens_does_not_push_a_valid_one_out(
    gated: GatedStore, issue: Issue, provider: Provider
) -> None:
    validator = make_validator(gated, provider.clock, provider.metrics, max_entries=10)
    token = await issue("shop")
    await validator.lookup(token)
    for number in range(100):
        with pytest.raises(InvalidTokenError):
            await validator.lookup(f"made-up-{number}")
    assert validator.cached(token) is not None
    assert len(validator) == 1


async def test_garbage_collector_does_not_look_at_unknown_tokens(
    gated: GatedStore, provider: Provider
) -> None:
    validator = make_validator(gated, provider.clock, provider.metrics, max_entries=1000)

    async def look_up(numbers: range) -> int:
        for number in numbers:
            with pytest.raises(InvalidTokenError):
                await validator.lookup(f"made-up-{number}")
        gc.collect()
        return len(gc.get_objects())

    before = await look_up(range(300))
    assert await look_up(range(300, 600)) - before < 150


async def test_cache_is_bounded_and_spares_what_is_used(
    gated: GatedStore, issue: Issue, provider: Provider
) -> None:
    validator = make_validator(gated, provider.clock, provider.metrics, max_entries=10)
    used = await issue("shop")
    await validator.lookup(used)
    for _ in range(30):
        assert validator.cached(used) is not None
        await validator.lookup(await issue("shop"))
        assert len(validator) <= 10
    assert validator.cached(used) is not None


async def test_cache_in_which_all_are_used_still_takes_new_ones(
    gated: GatedStore, issue: Issue, provider: Provider
) -> None:
    validator = make_validator(gated, provider.clock, provider.metrics, max_entries=50)
    tokens = [await issue("shop") for _ in range(50)]
    for token in tokens:
        await validator.lookup(token)
        assert validator.cached(token)
    new = await issue("shop")
    await validator.lookup(new)
    assert validator.cached(new)
    assert len(validator) == 50


async def test_change_of_a_client_forgets_its_tokens_and_no_others(
    validator: TokenCache, issue: Issue
) -> None:
    mine, other = await issue("mine"), await issue("other")
    for token in (mine, other):
        await validator.lookup(token)
    validator.forget(ClientChange("mine"))
    assert validator.cached(mine) is None
    assert validator.cached(other) is not None


async def test_change_of_a_token_forgets_that_token(validator: TokenCache, issue: Issue) -> None:
    one, two = await issue("shop"), await issue("shop")
    for token in (one, two):
        await validator.lookup(token)
    validator.forget(TokenChange(digest_token(one)))
    validator.forget(TokenChange(digest_token("never seen")))
    assert validator.cached(one) is None
    assert validator.cached(two) is not None
    validator.forget_all()
    assert validator.cached(two) is None
    assert len(validator) == 0


async def test_change_during_a_read_keeps_its_result_out_of_the_cache(
    validator: TokenCache, gated: GatedStore, issue: Issue
) -> None:
    token = await issue("shop")
    gated.gate.clear()
    waiter = asyncio.create_task(validator.lookup(token))
    await until(lambda: gated.reads == 1)
    validator.forget(ClientChange("shop"))
    gated.gate.set()
    await waiter
    assert validator.cached(token) is None


async def test_stale_token_is_believed_for_the_grace_while_the_store_is_down(
    gated: GatedStore, provider: Provider, issue: Issue
) -> None:
    validator = TokenCache(
        gated, provider.metrics, ttl_s=60, stale_s=300,
        clock=provider.clock, wall_clock=provider.clock,
    )  # fmt: skip
    token, revoked = await issue("a"), await issue("b")
    for one in (token, revoked):
        await validator.lookup(one)
    gated.is_down = True
    provider.clock.now += 61
    assert (await validator.lookup(token)).token.client_id == "a"
    with pytest.raises(StoreUnavailableError):
        await validator.lookup("never-seen")
    assert provider.metrics.data_plane.token_cache_lookups["stale"] == 1
    validator.forget(TokenChange(digest_token(revoked)))
    with pytest.raises(StoreUnavailableError):
        await validator.lookup(revoked)
    provider.clock.now += 298
    await validator.lookup(token)
    provider.clock.now += 2
    with pytest.raises(StoreUnavailableError):
        await validator.lookup(token)
    gated.is_down = False
    assert (await validator.lookup(token)).token.client_id == "a"


async def test_grace_ends_with_the_token_and_begins_only_with_trouble(
    gated: GatedStore, provider: Provider, issue: Issue
) -> None:
    validator = TokenCache(
        gated, provider.metrics, ttl_s=60, stale_s=86400.0,
        clock=provider.clock, wall_clock=provider.clock,
    )  # fmt: skip
    token, deleted = await issue("a"), await issue("b")
    for one in (token, deleted):
        await validator.lookup(one)
    await provider.store.clients.delete_client("b")
    provider.clock.now += 61
    with pytest.raises(InvalidTokenError):
        await validator.lookup(deleted)
    gated.is_down = True
    provider.clock.now += 6
    with pytest.raises(StoreUnavailableError):
        await validator.lookup(deleted)
    provider.clock.now += 3600
    with pytest.raises(StoreUnavailableError):
        await validator.lookup(token)


def make_entry(client_id: str, *scopes: str) -> CachedToken:
    return CachedToken(AccessToken(b"", client_id, "", scopes, 0, 1), 1, b"")


def test_access_asks_for_all_scopes_and_one_of_the_clients() -> None:
    access = Access(frozenset({"a", "b"}), frozenset({"x", "y"}))
    access.check(make_entry("x", "b", "a", "c"))
    with pytest.raises(InsufficientScopeError) as refused:
        access.check(make_entry("x", "a"))
    assert refused.value.reason == "scope"
    assert dict(refused.value.headers)["WWW-Authenticate"].endswith('scope="a b"')
    with pytest.raises(InsufficientScopeError) as refused:
        access.check(make_entry("z", "a", "b"))
    assert refused.value.reason == "client"
    Access().check(make_entry("anybody"))


@pytest.mark.parametrize(
    ("values", "token"),
    [
        ([b"Bearer abc"], "abc"),
        ([b"bearer   a-b._~+/c=="], "a-b._~+/c=="),
    ],
)
def test_bearer_is_read(values: list[bytes], token: str) -> None:
    assert read_bearer(values) == token


@pytest.mark.parametrize("values", [[], [b""], [b"Basic abc"], [b"Bearerabc"], [b"Token abc"]])
def test_absence_of_a_bearer_is_reported(values: list[bytes]) -> None:
    with pytest.raises(MissingTokenError):
        read_bearer(values)


@pytest.mark.parametrize(
    "values",
    [[b"Bearer"], [b"Bearer "], [b"Bearer a b"], [b"Bearer \xff"], [b"Bearer a", b"Bearer a"],
     [b"Basic x", b"Bearer a"], [b"Bearer =a"]],
)  # fmt: skip
def test_ambiguous_bearer_is_malformed(values: list[bytes]) -> None:
    with pytest.raises(MalformedTokenError):
        read_bearer(values)
