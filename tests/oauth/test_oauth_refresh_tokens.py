"""Refresh tokens (RFC 6749 section 6) and their families (RFC 9700 section 4.14)."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support import settings
from support.jose_values import make_key, make_proof
from support.provider import FORM, Provider, basic
from support.refreshing import (
    PUBLIC,
    allow,
    begin,
    is_good,
    refresh,
    refresh_token,
    register,
)
from support.servers.issuer import issuer
from support.stores.faults import break_store

from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.errors import InvalidClientError
from gateway.oauth.jose import read_jwt
from gateway.oauth.models import digest_token
from gateway.oauth.refresh.family import MAX_ACCESS_TOKENS

DAY = 86400.0
URL = "http://gateway.test/token"


@pytest.fixture(autouse=True)
async def shop(provider: Provider) -> None:
    allow(provider)
    await register(provider)


async def test_refresh_token_gets_a_new_access_token_for_the_same_user(provider: Provider) -> None:
    first = await begin(provider.server, audience=["http://gateway.test"])
    reply = await refresh(provider, refresh_token(first))
    assert reply.status == 200
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.json["token_type"] == "Bearer"
    assert reply.json["expires_in"] == 3600
    assert reply.json["scope"] == "orders:read orders:write"
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.claims["sub"] == "alice"
    assert token.claims["aud"] == ["http://gateway.test"]
    assert await is_good(provider, first.access_token), "the one before lives to its end"


async def test_rotating_token_is_replaced_by_each_use(provider: Provider) -> None:
    seen = [refresh_token(await begin(provider.server))]
    for _ in range(3):
        provider.clock.now += 60
        seen.append((await refresh(provider, seen[-1])).json["refresh_token"])
    assert len(set(seen)) == 4
    assert all(len(value.partition(".")[2]) >= 43 for value in seen), "256 bits"


async def test_reusable_token_stays(provider: Provider) -> None:
    allow(provider, strategy="reusable")
    value = refresh_token(await begin(provider.server))
    for _ in range(3):
        provider.clock.now += 60
        reply = await refresh(provider, value)
        assert (reply.status, reply.json["refresh_token"]) == (200, value)


async def test_reusable_token_of_a_public_client_rotates_unless_it_is_bound(
    provider: Provider,
) -> None:
    allow(provider, strategy="reusable")
    await register(provider, "app", PUBLIC)
    value = refresh_token(await begin(provider.server, "app"))
    reply = await refresh(provider, value, client_id="app", secret=None)
    assert reply.json["refresh_token"] != value


async def test_without_a_strategy_there_are_none(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    provider.change(grant_types=("client_credentials",))
    assert "refresh_token" not in (await begin(provider.server)).members
    assert (await refresh(provider, value)).error == (400, "unsupported_grant_type")


async def test_client_gets_none_unless_it_is_registered_for_them(provider: Provider) -> None:
    await register(provider, "plain", ClientMetadata())
    assert "refresh_token" not in (await begin(provider.server, "plain")).members
    value = refresh_token(await begin(provider.server))
    reply = await refresh(provider, value, client_id="plain")
    assert reply.error == (400, "unauthorized_client")


async def test_client_credentials_get_none(provider: Provider) -> None:
    body = "grant_type=client_credentials"
    reply = await provider.fetch("POST", "/token", basic("shop", "secret") | FORM, body)
    assert "refresh_token" not in reply.json


async def test_used_token_ends_the_whole_family(provider: Provider) -> None:
    first = await begin(provider.server)
    second = await refresh(provider, refresh_token(first))
    third = await refresh(provider, second.json["refresh_token"])
    # From the second on: the first response after `refresh_token(first)` has been used itself.
    reply = await refresh(provider, refresh_token(first))
    assert (reply.error, reply.reason) == ((400, "invalid_grant"), "refresh_token_reused")
    for token in (first.access_token, second.json["access_token"], third.json["access_token"]):
        assert not await is_good(provider, token)
    for reused in (refresh_token(first), *(r.json["refresh_token"] for r in (second, third))):
        assert (await refresh(provider, reused)).error == (400, "invalid_grant")
    assert b"gateway_refresh_token_reuse_total 1.0" in provider.metrics.render()


async def test_lost_response_is_given_once_more_for_a_moment(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    lost = await refresh(provider, value)
    provider.clock.now += 9.9
    again = await refresh(provider, value)
    assert again.status == 200
    assert again.json["refresh_token"] == lost.json["refresh_token"], "never two live ones"
    provider.clock.now += 0.2
    assert (await refresh(provider, value)).error == (400, "invalid_grant")
    assert (await refresh(provider, again.json["refresh_token"])).error == (400, "invalid_grant")


async def test_grace_starts_with_the_first_use_only(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    for wait_s, status in ((0.0, 200), (6.0, 200), (6.0, 400)):
        provider.clock.now += wait_s
        assert (await refresh(provider, value)).status == status


async def test_grace_ends_when_the_next_token_is_used(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    second = await refresh(provider, value)
    assert (await refresh(provider, second.json["refresh_token"])).status == 200
    assert (await refresh(provider, value)).error == (400, "invalid_grant")


async def test_without_grace_a_second_use_is_reuse(provider: Provider) -> None:
    allow(provider, reuse_grace_s=0.0)
    value = refresh_token(await begin(provider.server))
    second = await refresh(provider, value)
    assert (await refresh(provider, value)).error == (400, "invalid_grant")
    assert not await is_good(provider, second.json["access_token"])


async def test_made_up_token_with_the_id_of_a_family_ends_it(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    family_id, _, _ = value.partition(".")
    assert (await refresh(provider, f"{family_id}.{'x' * 43}")).error == (400, "invalid_grant")
    assert (await refresh(provider, value)).error == (400, "invalid_grant")


@pytest.mark.parametrize("value", ["x", "x.", ".x", "a.b", "x" * 5000, "é.è", "a.b.c"])
async def test_token_that_is_none_is_an_invalid_grant(provider: Provider, value: str) -> None:
    assert (await refresh(provider, value)).error == (400, "invalid_grant")


async def test_token_must_be_given(provider: Provider) -> None:
    assert (await refresh(provider, "")).error == (400, "invalid_request")


async def test_token_is_good_for_its_client_only(provider: Provider) -> None:
    await register(provider, "other")
    value = refresh_token(await begin(provider.server))
    reply = await refresh(provider, value, client_id="other")
    assert reply.error == (400, "invalid_grant")
    assert (await refresh(provider, value, secret="wrong")).error == (401, "invalid_client")
    assert (await refresh(provider, value)).status == 200, "and what others try does it no harm"


async def test_scope_can_be_narrowed_but_not_widened(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server, scopes=["orders:read"]))
    reply = await refresh(provider, value, scope="orders:read orders:write")
    assert reply.error == (400, "invalid_scope")
    value = refresh_token(await begin(provider.server))
    narrowed = await refresh(provider, value, scope="orders:write")
    assert narrowed.json["scope"] == "orders:write"
    full = await refresh(provider, narrowed.json["refresh_token"])
    assert full.json["scope"] == "orders:read orders:write", "the grant itself is not narrowed"


async def test_scope_that_the_client_lost_is_not_refreshed(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    await provider.server.update_client("shop", scopes=["orders:read"])
    assert (await refresh(provider, value, scope="orders:write")).error == (400, "invalid_scope")
    reply = await refresh(provider, value)
    assert reply.json["scope"] == "orders:read"
    await provider.server.update_client("shop", scopes=["orders:write"])
    value = refresh_token(await begin(provider.server, scopes=["orders:write"]))
    await provider.server.update_client("shop", scopes=["orders:read"])
    assert (await refresh(provider, value)).error == (400, "invalid_scope")


async def test_resource_can_be_narrowed_but_not_widened(provider: Provider) -> None:
    provider.change(audiences=("urn:a", "urn:b", "urn:c"))
    value = refresh_token(await begin(provider.server, audience=["urn:a", "urn:b"]))
    reply = await refresh(provider, value, resource="urn:c")
    assert reply.error == (400, "invalid_target")
    reply = await refresh(provider, value, resource="urn:b")
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.claims["aud"] == ["urn:b"]


async def test_token_of_a_public_client_needs_its_key(provider: Provider) -> None:
    allow(provider, strategy="reusable")
    await register(provider, "app", PUBLIC)
    key, other = make_key(), make_key()
    issued = await begin(provider.server, "app", confirmation={"jkt": key.thumbprint()})
    value = refresh_token(issued)

    async def prove(with_key: Any) -> Any:
        proof = make_proof(with_key, "POST", URL, provider.clock.now)
        return await refresh(provider, value, client_id="app", secret=None, headers={"DPoP": proof})

    reply = await refresh(provider, value, client_id="app", secret=None)
    assert reply.error == (400, "invalid_grant")
    assert (await prove(other)).error == (400, "invalid_grant")
    reply = await prove(key)
    assert (reply.status, reply.json["token_type"]) == (200, "DPoP")
    assert reply.json["refresh_token"] == value, "bound, so it need not rotate"


async def test_confidential_client_may_change_its_key(provider: Provider) -> None:
    key, other = make_key(), make_key()
    issued = await begin(provider.server, confirmation={"jkt": key.thumbprint()})
    proof = make_proof(other, "POST", URL, provider.clock.now)
    reply = await refresh(provider, refresh_token(issued), headers={"DPoP": proof})
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.claims["cnf"] == {"jkt": other.thumbprint()}


async def test_unused_token_expires_and_each_use_renews_it(provider: Provider) -> None:
    allow(provider, ttl_s=10 * DAY, max_ttl_s=100 * DAY)
    await provider.server.renew_client("shop")
    value = refresh_token(await begin(provider.server))
    for _ in range(2):
        provider.clock.now += 9 * DAY
        value = (await refresh(provider, value)).json["refresh_token"]
    provider.clock.now += 10 * DAY
    assert (await refresh(provider, value)).error == (400, "invalid_grant")


async def test_family_ends_however_often_it_is_used(provider: Provider) -> None:
    allow(provider, ttl_s=10 * DAY, max_ttl_s=20 * DAY)
    value = refresh_token(await begin(provider.server))
    for _ in range(2):
        provider.clock.now += 9 * DAY
        value = (await refresh(provider, value)).json["refresh_token"]
    provider.clock.now += 2 * DAY - 60
    last = await refresh(provider, value)
    assert last.json["expires_in"] == 60, "no access token outlives its family"
    provider.clock.now += 60
    assert (await refresh(provider, value)).error == (400, "invalid_grant")


async def test_ended_families_are_purged(provider: Provider) -> None:
    await begin(provider.server)
    await begin(provider.server, username=None)
    provider.clock.now += 30 * DAY + 1
    purged = await provider.store.purge(tokens_before=provider.clock.now, clients_before=0)
    assert purged.records == 2
    provider.clock.now += 150 * DAY
    purged = await provider.store.purge(tokens_before=provider.clock.now, clients_before=0)
    assert purged.records == 1, "the link from the user"


@pytest.mark.parametrize("which", ["refresh", "old refresh", "access", "old access"])
async def test_revoking_any_token_ends_its_family(provider: Provider, which: str) -> None:
    first = await begin(provider.server)
    second = (await refresh(provider, refresh_token(first))).json
    token = {
        "refresh": second["refresh_token"], "old refresh": refresh_token(first),
        "access": second["access_token"], "old access": first.access_token,
    }[which]  # fmt: skip
    for good in (first.access_token, second["access_token"]):
        assert await is_good(provider, good)
    reply = await provider.fetch(
        "POST", "/revoke", basic("shop", "secret") | FORM, f"token={token}"
    )
    assert (reply.status, reply.json) == (200, {})
    for good in (first.access_token, second["access_token"]):
        assert not await is_good(provider, good)
    assert (await refresh(provider, second["refresh_token"])).error == (400, "invalid_grant")


async def test_family_of_another_client_is_not_revoked(provider: Provider) -> None:
    await register(provider, "other")
    first = await begin(provider.server)
    for token in (refresh_token(first), first.access_token):
        reply = await provider.fetch(
            "POST", "/revoke", basic("other", "secret") | FORM, f"token={token}"
        )
        assert reply.error == (400, "unauthorized_client")
    assert (await refresh(provider, refresh_token(first))).status == 200


async def test_family_goes_with_its_client(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    await provider.server.store.clients.delete_client("shop")
    await register(provider)
    assert (await refresh(provider, value)).error == (400, "invalid_grant")


async def test_family_goes_with_all_tokens_of_its_client(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    await provider.server.rotate_secret("shop", client_secret="secret")
    value = (await refresh(provider, value)).json["refresh_token"]
    await provider.server.rotate_secret("shop", client_secret="secret", revoke_tokens=True)
    assert (await refresh(provider, value)).error == (400, "invalid_grant")


async def test_no_token_is_left_of_a_refresh_during_a_rotation_that_revokes(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = refresh_token(await begin(provider.server))
    records, issued = provider.store.records, []
    delete = records.delete_owned_records

    async def refresh_first(kind: str, owner: str) -> int:
        issued.append((await refresh(provider, value)).json["access_token"])
        return await delete(kind, owner)

    monkeypatch.setattr(records, "delete_owned_records", refresh_first)
    await provider.server.rotate_secret("shop", client_secret="secret", revoke_tokens=True)
    assert [await is_good(provider, token) for token in issued] == [False]


async def test_families_go_with_their_user(provider: Provider) -> None:
    await register(provider, "other")
    of_alice = [await begin(provider.server), await begin(provider.server, "other")]
    of_bob = await begin(provider.server, username="bob")
    assert await provider.server.refresh_tokens.end_user("alice") == 2
    for client_id, issued in zip(("shop", "other"), of_alice, strict=True):
        assert not await is_good(provider, issued.access_token)
        reply = await refresh(provider, refresh_token(issued), client_id=client_id)
        assert reply.error == (400, "invalid_grant")
    assert (await refresh(provider, refresh_token(of_bob))).status == 200
    assert await provider.server.refresh_tokens.end_user("alice") == 0


async def test_family_begun_while_its_user_is_deleted_does_not_stay(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_record = provider.store.records.add_record

    async def delete_user_then_add(record: Any) -> bool:
        if record.kind == "refresh-family":
            await provider.server.refresh_tokens.end_user("alice")
        return await add_record(record)

    monkeypatch.setattr(provider.store.records, "add_record", delete_user_then_add)
    with pytest.raises(InvalidClientError):
        await begin(provider.server)
    assert await provider.server.refresh_tokens.list_families("shop") == []


async def test_introspection_shows_a_client_its_own_refresh_token(provider: Provider) -> None:
    await register(provider, "resource")
    first = refresh_token(await begin(provider.server, audience=["http://gateway.test"]))
    value = (await refresh(provider, first)).json["refresh_token"]

    async def introspect(client_id: str, token: str) -> Any:
        headers = basic(client_id, "secret") | FORM
        return (await provider.fetch("POST", "/introspect", headers, f"token={token}")).json

    assert await introspect("shop", value) == {
        "active": True, "client_id": "shop", "sub": "alice", "iss": "http://gateway.test",
        "scope": "orders:read orders:write", "token_use": "refresh_token",
        "iat": 1_000_000, "exp": 1_000_000 + 30 * 86400, "aud": ["http://gateway.test"],
    }  # fmt: skip
    assert await introspect("resource", value) == {"active": False}, "it is no access token"
    assert await introspect("shop", first) == {"active": False}, "it was replaced"
    assert (await refresh(provider, value)).status == 200, "asking does no harm"


async def test_introspecting_a_refresh_token_shows_it_to_no_other_issuer(
    provider: Provider,
) -> None:
    async with issuer() as elsewhere:
        server = settings.introspection_server(
            name="other", endpoint=elsewhere.endpoint, client_id="us", client_secret="secret"
        )
        provider.trust(servers=[server])
        old = refresh_token(await begin(provider.server))
        new = (await refresh(provider, old)).json["refresh_token"]
        for value, is_active in ((new, True), (old, False)):
            headers = basic("shop", "secret") | FORM
            reply = await provider.fetch("POST", "/introspect", headers, f"token={value}")
            assert reply.json["active"] is is_active
        assert elsewhere.requests == []


async def test_refresh_token_is_no_access_token(provider: Provider) -> None:
    assert not await is_good(provider, refresh_token(await begin(provider.server)))


async def test_store_holds_no_refresh_token(provider: Provider, tmp_path: Path) -> None:
    first = await begin(provider.server)
    second = await refresh(provider, refresh_token(first))
    rows = sqlite3.connect(tmp_path / "gateway.db").execute("SELECT * FROM records").fetchall()
    text = repr(rows)
    assert digest_token(refresh_token(first).partition(".")[0]).hex() in text
    for value in (refresh_token(first), second.json["refresh_token"]):
        for part in value.split("."):
            assert part not in text


async def test_jwt_reports_nothing_of_its_family(provider: Provider) -> None:
    provider.change(token_format="jwt")
    first = await begin(provider.server)
    assert first.token.family is not None
    assert first.token.family not in first.access_token
    assert set(read_jwt(first.access_token).claims) == {
        "iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope"
    }  # fmt: skip


async def test_two_uses_at_once_rotate_once(provider: Provider) -> None:
    value = refresh_token(await begin(provider.server))
    replies = await asyncio.gather(*(refresh(provider, value) for _ in range(8)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.json["refresh_token"] for reply in replies}) == 1
    assert len({reply.json["access_token"] for reply in replies}) == 8
    assert all([await is_good(provider, reply.json["access_token"]) for reply in replies])


async def test_two_uses_at_once_without_grace_end_the_family(provider: Provider) -> None:
    allow(provider, reuse_grace_s=0.0)
    value = refresh_token(await begin(provider.server))
    replies = await asyncio.gather(*(refresh(provider, value) for _ in range(8)))
    won = [reply for reply in replies if reply.status == 200]
    assert len(won) <= 1
    assert {reply.error for reply in replies if reply not in won} == {(400, "invalid_grant")}
    for reply in won:
        assert not await is_good(provider, reply.json["access_token"])


async def test_family_has_so_many_access_tokens_and_no_more(provider: Provider) -> None:
    allow(provider, strategy="reusable")
    first = await begin(provider.server)
    tokens = [first.access_token]
    for _ in range(MAX_ACCESS_TOKENS):
        assert await is_good(provider, tokens[0])
        reply = await refresh(provider, refresh_token(first))
        tokens.append(reply.json["access_token"])
    assert [await is_good(provider, token) for token in tokens] == [
        False,
        *[True] * MAX_ACCESS_TOKENS,
    ]


async def test_store_outage_is_503(provider: Provider, tmp_path: Path) -> None:
    value = refresh_token(await begin(provider.server))
    assert (await refresh(provider, value)).status == 200
    break_store(tmp_path / "gateway.db")
    assert (await refresh(provider, value)).error == (503, "temporarily_unavailable")


async def test_operator_lists_and_ends_families(provider: Provider) -> None:
    issued = await begin(provider.server)
    families = provider.server.refresh_tokens
    (state,) = await families.list_families("shop")
    assert state.key == issued.token.family
    assert (state.family.username, state.expires_at) == ("alice", 1_000_000 + 30 * DAY)
    assert await families.end(state.key) is not None
    assert await families.end(state.key) is None
    assert await families.list_families("shop") == []
    assert not await is_good(provider, issued.access_token)


async def test_each_of_thirty_uses_at_once_gets_a_live_access_token(provider: Provider) -> None:
    allow(provider)
    value = refresh_token(await begin(provider.server))
    replies = await asyncio.gather(*(refresh(provider, value) for _ in range(30)))
    tokens = [reply.json["access_token"] for reply in replies if reply.status == 200]
    assert tokens
    assert all([await is_good(provider, token) for token in tokens])
