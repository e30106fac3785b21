"""What every store promises, whatever it is made of."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

import pytest
from support.provider import Clock
from support.stores.values import make_client, make_token

from gateway.oauth.models import (
    ClientChange,
    ClientExistsError,
    ClientGoneError,
    Purged,
    Store,
    TokenChange,
    digest_token,
)
from gateway.rate_limit import RateLimit


async def test_client_comes_back_as_it_was_kept(store: Store) -> None:
    for client in (make_client(), make_client("never", ends=None)):
        await store.clients.add_client(client)
        assert await store.clients.get_client(client.client_id) == client
    assert await store.clients.get_client("nobody") is None


async def test_client_metadata_and_token_claims_come_back_as_they_were_kept(store: Store) -> None:
    metadata = {"redirect_uris": ["https://å.example/cb"], "jwks": {"keys": []}, "n": 1.5}
    client = replace(make_client(), metadata=metadata)
    await store.clients.add_client(client)
    assert await store.clients.get_client("shop") == client
    token = replace(make_token(), claims={"sub": "alice", "aud": ["a", "b"], "act": {"sub": "x"}})
    await store.tokens.add_token(token, generation=7)
    assert await store.tokens.get_token(token.digest) == token
    assert await store.tokens.revoke_token(token.digest) == token


async def test_client_id_is_taken_once_also_by_an_expired_client(store: Store) -> None:
    await store.clients.add_client(make_client(ends=1.0))
    with pytest.raises(ClientExistsError):
        await store.clients.add_client(replace(make_client(), client_name="thief"))
    kept = await store.clients.get_client("shop")
    assert kept is not None
    assert kept.client_name == "shop name"


async def test_client_ids_differ_by_case_and_hold_any_text(store: Store) -> None:
    ids = ["shop", "Shop", "a'b\"c", "%", "_", "å"]
    for client_id in ids:
        await store.clients.add_client(make_client(client_id))
    assert [client.client_id for client in await store.clients.list_clients()] == sorted(ids)


async def test_clients_are_listed_in_pages(store: Store) -> None:
    for number in range(25):
        await store.clients.add_client(make_client(f"client-{number:02}"))
    seen: list[str] = []
    while page := await store.clients.list_clients(after=seen[-1] if seen else "", limit=10):
        assert len(page) <= 10
        seen += [client.client_id for client in page]
    assert seen == [f"client-{number:02}" for number in range(25)]


async def test_token_comes_back_with_the_name_that_its_client_has(store: Store) -> None:
    await store.clients.add_client(make_client())
    token = make_token()
    await store.tokens.add_token(token, generation=7)
    assert await store.tokens.get_token(token.digest) == token
    assert await store.tokens.get_token(digest_token("other")) is None


@pytest.mark.parametrize("generation", [6, 8])
async def test_token_of_an_overtaken_authentication_is_refused(
    store: Store, generation: int
) -> None:
    await store.clients.add_client(make_client())
    with pytest.raises(ClientGoneError):
        await store.tokens.add_token(make_token(), generation=generation)
    with pytest.raises(ClientGoneError):
        await store.tokens.add_token(make_token(client_id="nobody"), generation=7)
    assert await store.tokens.get_token(make_token().digest) is None


async def test_deleted_client_takes_its_tokens_along(store: Store) -> None:
    for client_id in ("shop", "other"):
        await store.clients.add_client(make_client(client_id))
        await store.tokens.add_token(make_token(client_id, client_id), generation=7)
    await store.tokens.add_token(make_token("expired", ends=999_999.0), generation=7)
    assert await store.clients.delete_client("shop") == 1, "only live tokens count"
    assert await store.clients.get_client("shop") is None
    assert await store.tokens.get_token(digest_token("shop")) is None
    assert await store.tokens.get_token(digest_token("other")) is not None
    assert await store.clients.delete_client("shop") is None


async def test_replaced_client_loses_its_tokens_and_changes_its_generation(store: Store) -> None:
    assert await store.clients.replace_client(make_client()) == 0
    await store.tokens.add_token(make_token(), generation=7)
    assert await store.clients.replace_client(replace(make_client(), client_name="new")) == 1
    kept = await store.clients.get_client("shop")
    assert kept is not None
    assert (kept.client_name, kept.generation) == ("new", 8)
    assert await store.tokens.get_token(make_token().digest) is None


async def test_new_secret_changes_the_generation_and_keeps_the_tokens(store: Store) -> None:
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(), generation=7)
    changed = await store.clients.set_client_secret("shop", "new hash")
    assert changed == replace(make_client(), secret_hash="new hash", generation=8)
    assert await store.clients.get_client("shop") == changed
    assert await store.tokens.get_token(make_token().digest) is not None
    with pytest.raises(ClientGoneError):
        await store.tokens.add_token(make_token("late"), generation=7)
    assert await store.clients.set_client_secret("nobody", "x") is None


async def test_updated_client_changes_its_generation_and_keeps_its_tokens(store: Store) -> None:
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(), generation=7)
    wanted = replace(
        make_client(), client_name="new", scopes=("c",), metadata={"a": 1}, expires_at=None
    )
    updated = await store.clients.update_client(
        replace(wanted, secret_hash="ignored", created_at=9.0, generation=99), generation=7
    )
    assert updated == replace(wanted, generation=8)
    assert await store.clients.get_client("shop") == updated
    token = await store.tokens.get_token(make_token().digest)
    assert token == replace(make_token(), client_name="new")
    with pytest.raises(ClientGoneError):
        await store.tokens.add_token(make_token("late"), generation=7)


async def test_update_of_a_client_that_changed_meanwhile_is_refused(store: Store) -> None:
    await store.clients.add_client(make_client())
    outcomes = await asyncio.gather(
        *(
            store.clients.update_client(replace(make_client(), client_name=str(n)), generation=7)
            for n in range(10)
        )
    )
    (won,) = (outcome for outcome in outcomes if outcome is not None)
    assert await store.clients.get_client("shop") == won
    assert await store.clients.update_client(make_client("nobody"), generation=7) is None


async def test_rate_limit_of_a_client_is_reported_with_its_tokens(store: Store) -> None:
    limit = RateLimit(100, 1.5, 50)
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(), generation=7)
    cursor, _ = await store.changes_since(None)
    limited = replace(make_client(), rate_limit=limit)
    assert await store.clients.set_client_rate_limit("shop", limit) == limited
    assert await store.clients.get_client("shop") == limited
    assert await store.clients.list_clients() == [limited]
    assert await store.tokens.get_token(make_token().digest) == replace(
        make_token(), rate_limit=limit
    )
    assert (await store.changes_since(cursor))[1] == [ClientChange("shop")]
    updated = await store.clients.update_client(
        replace(make_client(), client_name="x"), generation=7
    )
    assert updated is not None
    assert updated.rate_limit == limit, "it is the operator's, not the client's"
    assert await store.clients.set_client_rate_limit("shop", None) == replace(
        updated, rate_limit=None
    )
    assert await store.clients.set_client_rate_limit("nobody", limit) is None


async def test_client_is_added_with_its_rate_limit(store: Store) -> None:
    limited = replace(make_client(), rate_limit=RateLimit(1, 60.0, 1))
    await store.clients.add_client(limited)
    assert await store.clients.get_client("shop") == limited


async def test_end_of_a_client_can_be_moved_and_taken_away(store: Store) -> None:
    await store.clients.add_client(make_client())
    for end in (3_000_000.0, None):
        assert await store.clients.set_client_expiry("shop", end) == make_client(ends=end)
        assert await store.clients.get_client("shop") == make_client(ends=end)
    assert await store.clients.set_client_expiry("nobody", None) is None


async def test_token_is_revoked_once(store: Store) -> None:
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(), generation=7)
    assert await store.tokens.revoke_token(make_token().digest) == make_token()
    assert await store.tokens.revoke_token(make_token().digest) is None
    assert await store.tokens.get_token(make_token().digest) is None


async def test_all_tokens_of_a_client_are_revoked_and_the_client_stays(store: Store) -> None:
    await store.clients.add_client(make_client())
    for value in ("one", "two"):
        await store.tokens.add_token(make_token(value), generation=7)
    assert await store.tokens.revoke_client_tokens("shop") == 2
    assert await store.tokens.get_token(digest_token("one")) is None
    assert await store.clients.get_client("shop") == make_client()


async def test_changes_report_what_became_invalid_after_the_cursor(store: Store) -> None:
    for client_id in ("a", "b", "c", "d"):
        await store.clients.add_client(make_client(client_id))
        await store.tokens.add_token(make_token(client_id, client_id), generation=7)
    start, nothing = await store.changes_since(None)
    assert nothing == []
    await store.clients.delete_client("a")
    await store.tokens.revoke_token(digest_token("b"))
    middle, changes = await store.changes_since(start)
    assert changes == [ClientChange("a"), TokenChange(digest_token("b"))]
    await store.clients.replace_client(make_client("c"))
    await store.tokens.revoke_client_tokens("d")
    end, changes = await store.changes_since(middle)
    assert changes == [ClientChange("c"), ClientChange("d")]
    assert await store.changes_since(end) == (end, [])


async def test_reader_that_slept_too_long_learns_that_it_missed_something(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Redis goes by its own clock, which no test turns forward.
    module = sys.modules[type(store).__module__]
    monkeypatch.setattr(module, "CHANGE_RETENTION_S", -1.0)
    for client_id in ("a", "b", "c"):
        await store.clients.add_client(make_client(client_id))
    start, _ = await store.changes_since(None)
    await store.clients.delete_client("a")
    await store.clients.delete_client("b")
    clock.now += 3600
    await store.purge(tokens_before=0, clients_before=0)
    end, changes = await store.changes_since(start)
    assert changes is None
    assert await store.changes_since(end) == (end, [])
    assert (await store.changes_since(end + 100))[1] is None, "the store was replaced"


async def test_purge_removes_what_ended_and_nothing_else(store: Store, clock: Clock) -> None:
    clock.now = 400.0
    await store.clients.add_client(make_client("lives"))
    await store.clients.add_client(make_client("ended", ends=500.0))
    await store.clients.add_client(make_client("never", ends=None))
    for start in range(0, 2500, 50):
        await asyncio.gather(
            *(
                store.tokens.add_token(
                    make_token(f"old-{number}", "lives", ends=999.0), generation=7
                )
                for number in range(start, start + 50)
            )
        )
    await store.tokens.add_token(make_token("new", "lives", ends=1001.0), generation=7)
    clock.now = 1000.0
    purged = await store.purge(tokens_before=1000.0, clients_before=600.0)
    assert purged.tokens in {0, 2500}, "Redis removes them by itself"
    assert (purged.clients, purged.records) == (1, 0)
    assert await store.tokens.get_token(digest_token("new")) is not None
    old = await store.tokens.get_token(digest_token("old-0"))
    assert old is None or purged.tokens == 0
    assert [client.client_id for client in await store.clients.list_clients()] == ["lives", "never"]


async def test_purged_client_takes_its_tokens_along(store: Store) -> None:
    await store.clients.add_client(make_client(ends=500.0))
    await store.tokens.add_token(make_token(), generation=7)
    assert await store.purge(tokens_before=0, clients_before=600.0) == Purged(0, 1)
    await store.clients.add_client(make_client())
    assert await store.tokens.get_token(make_token().digest) is None, "of a namesake long gone"


async def test_census_counts_by_end(store: Store) -> None:
    for client_id, ends in (("a", 50.0), ("b", 150.0), ("c", 120.0), ("d", 500.0), ("e", None)):
        await store.clients.add_client(make_client(client_id, ends=ends))
    census = await store.clients.census(now=100.0, expiring_before=200.0)
    assert (census.total, census.expired, census.expiring) == (5, 1, 2)
    expiring = await store.clients.expiring_clients(now=100.0, before=200.0)
    assert [client.client_id for client in expiring] == ["c", "b"]


async def test_concurrent_writes_each_stand_or_fall_alone(store: Store) -> None:
    await store.clients.add_client(make_client())
    outcomes = await asyncio.gather(
        *(
            store.tokens.add_token(make_token(f"t{number}"), generation=7 if number % 3 else 0)
            for number in range(300)
        ),
        return_exceptions=True,
    )
    for number, outcome in enumerate(outcomes):
        kept = await store.tokens.get_token(digest_token(f"t{number}"))
        if number % 3:
            assert outcome is None
            assert kept is not None
        else:
            assert isinstance(outcome, ClientGoneError)
            assert kept is None


async def test_write_whose_caller_went_away_does_not_hurt_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await store.clients.add_client(make_client())
    tasks = [
        asyncio.create_task(store.tokens.add_token(make_token(f"t{number}"), generation=7))
        for number in range(20)
    ]
    await asyncio.sleep(0)
    tasks[3].cancel()
    with caplog.at_level("ERROR"):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await store.tokens.get_token(digest_token("t19"))
    assert caplog.records == [], "the event loop met an error that nobody waited for"
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [
        asyncio.CancelledError
    ]
    await store.ping()
    assert await store.tokens.get_token(digest_token("t19")) is not None
