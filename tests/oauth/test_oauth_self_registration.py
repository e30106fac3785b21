"""What clients get that register over HTTP, and what they can't take."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from support.jose_values import jwks, make_assertion, make_key
from support.provider import FORM, JSON, REGISTER, Provider, Reply

from gateway.oauth.authentication import assertion as module
from gateway.oauth.client_metadata import ClientMetadata, metadata_of
from gateway.oauth.errors import InvalidClientMetadataError
from gateway.oauth.jose import verify_jwt
from gateway.oauth.policy import TOKEN_EXCHANGE
from gateway.oauth.unused_clients import UNUSED_CLIENT, purge_unused
from gateway.rate_limit import RateLimit

NATIVE = {
    "redirect_uris": ["http://127.0.0.1/callback"],
    "token_endpoint_auth_method": "none",
}
CODE = ("authorization_code",)


async def create(provider: Provider, **parameters: str) -> Reply:
    """Register as Mule flows do."""
    headers = {} if provider.policy.registration_mode == "open" else REGISTER
    return await provider.fetch("POST", "/createClient", headers | parameters)


async def register(provider: Provider, **members: Any) -> Reply:
    headers = {} if provider.policy.registration_mode == "open" else REGISTER
    return await provider.fetch("POST", "/register", headers | JSON, json.dumps(members))


# Open registration.


async def test_open_registration_gives_the_default_scopes_and_no_exchange(
    provider: Provider,
) -> None:
    provider.change(
        registration_mode="open",
        grant_types=("client_credentials", "authorization_code", TOKEN_EXCHANGE),
    )
    for reply in (
        await create(provider),
        await create(provider, scope="orders:read orders:write"),
        await register(provider),
        await register(provider, scope="orders:write orders:read"),
        await register(provider, grant_types=["client_credentials", TOKEN_EXCHANGE]),
    ):
        assert (reply.status, reply.json["scope"]) == (201, "orders:read")
        assert reply.json["grant_types"] == ["client_credentials"]
    assert (await register(provider, scope="orders:write")).error == (
        400,
        "invalid_client_metadata",
    )
    assert (await register(provider, grant_types=[TOKEN_EXCHANGE])).status == 400


async def test_operator_says_what_registration_gives(provider: Provider) -> None:
    provider.change(
        registration_scopes=("orders:write",), registration_grant_types=("client_credentials",),
        grant_types=("client_credentials", "authorization_code"),
    )  # fmt: skip
    reply = await register(
        provider, scope="orders:read orders:write", redirect_uris=["https://a.example/"],
        grant_types=["authorization_code", "client_credentials"],
    )  # fmt: skip
    assert (reply.json["scope"], reply.json["grant_types"]) == (
        "orders:write",
        ["client_credentials"],
    )
    assert (await create(provider)).json["scope"] == "orders:write"


async def test_no_client_chooses_an_id_where_every_peer_can_register(provider: Provider) -> None:
    provider.change(registration_mode="open")
    assert (await create(provider, client_id="billing")).error == (400, "invalid_client_metadata")
    assert await provider.server.store.clients.get_client("billing") is None


async def test_id_that_a_route_names_is_an_operators_to_register(provider: Provider) -> None:
    provider.change(reserved_client_ids=frozenset({"billing"}))
    assert (await create(provider, client_id="billing")).error == (400, "invalid_client_metadata")
    assert await provider.server.register_client(client_id="billing")


# Clients that are there already.


async def test_client_of_an_operator_is_never_replaced(provider: Provider, shop: str) -> None:
    provider.change(fail_if_present=False)
    for secret in ("secret", "other"):
        reply = await create(provider, client_id=shop, client_secret=secret)
        assert reply.error == (409, "client_already_exists")
    assert await provider.issue_token(shop, "secret", None, "x")


async def test_what_an_operator_set_outlives_a_replacement(provider: Provider) -> None:
    provider.change(fail_if_present=False, audiences=("urn:a",))
    await create(provider, client_id="own", client_secret="old")
    store, limit = provider.server.store, RateLimit(1, 1.0, 1)
    await store.clients.set_client_rate_limit("own", limit)
    await provider.server.update_client(
        "own", scopes=["orders:read"], metadata=lambda old: replace(old, audiences=("urn:a",))
    )
    for secret in ("old", "new"):
        reply = await create(
            provider, client_id="own", client_secret=secret, scope="orders:read orders:write"
        )
        assert reply.json["scope"] == "orders:read"
        client = await store.clients.get_client("own")
        assert client is not None
        assert client.rate_limit == limit
        assert metadata_of(client).audiences == ("urn:a",)


async def test_tokens_stay_where_id_and_secret_are_the_same(provider: Provider) -> None:
    provider.change(fail_if_present=False)
    await create(provider, client_id="own", client_secret="old", client_name="One")
    token = (await provider.issue_token("own", "old", None, "x")).access_token
    provider.clock.now += 60
    reply = await create(provider, client_id="own", client_secret="old", client_name="Two")
    assert "replaced" not in reply.json
    assert reply.json["client_name"] == "Two"
    assert reply.json["client_secret_expires_at"] == provider.clock.now + 30 * 86400
    assert await provider.server.inspect_token(token) is not None
    reply = await create(provider, client_id="own", client_secret="new")
    assert reply.json["replaced"] is True
    assert await provider.server.inspect_token(token) is None


async def test_expired_client_is_renewed_by_its_secret_and_named_so_otherwise(
    provider: Provider,
) -> None:
    await create(provider, client_id="own", client_secret="old")
    provider.clock.now += 30 * 86400
    reply = await create(provider, client_id="own", client_secret="other")
    assert reply.error == (409, "client_already_exists")
    assert "expired" in reply.json["error_description"]
    assert (await create(provider, client_id="own", client_secret="old")).status == 201
    assert await provider.issue_token("own", "old", None, "x")


# RFC 7591 section 3.2.1: what is not offered is left out.


async def test_registration_narrows_what_is_not_offered_and_says_so(provider: Provider) -> None:
    provider.change(grant_types=CODE)
    reply = await register(
        provider, **NATIVE, grant_types=["authorization_code", "refresh_token"],
        response_types=["code", "token"], scope="orders:read openid",
    )  # fmt: skip
    assert reply.status == 201
    assert reply.json["grant_types"] == ["authorization_code"]
    assert reply.json["response_types"] == ["code"]
    assert reply.json["scope"] == "orders:read"


async def test_scopes_are_left_out_where_there_are_none(provider: Provider) -> None:
    provider.change(scopes=(), default_scopes=())
    reply = await register(provider, scope="openid profile")
    assert reply.status == 201
    assert "scope" not in reply.json


async def test_public_client_is_registered_without_the_grant_that_it_cannot_use(
    provider: Provider,
) -> None:
    provider.change(grant_types=("client_credentials", "authorization_code"))
    reply = await register(provider, **NATIVE, grant_types=["client_credentials", *CODE])
    assert (reply.status, reply.json["grant_types"]) == (201, list(CODE))


@pytest.mark.parametrize("offered", [CODE, ("client_credentials", "authorization_code")])
async def test_default_grant_is_that_of_rfc_7591_where_it_can_be_meant(
    provider: Provider, offered: tuple[str, ...]
) -> None:
    provider.change(grant_types=offered)
    made = await register(provider, **NATIVE)
    assert (made.status, made.json["grant_types"]) == (201, list(CODE))
    bearer = {"Authorization": f"Bearer {made.json['registration_access_token']}"} | JSON
    client_id = made.json["client_id"]
    reply = await provider.fetch(
        "PUT", "/register", bearer, json.dumps({"client_id": client_id} | NATIVE),
        query=f"client_id={client_id}",
    )  # fmt: skip
    assert (reply.status, reply.json["grant_types"]) == (200, list(CODE))


async def test_refresh_token_alone_is_no_way_to_a_first_token(provider: Provider) -> None:
    provider.change(grant_types=("client_credentials", "refresh_token"))
    reply = await register(provider, **NATIVE, grant_types=["authorization_code", "refresh_token"])
    assert reply.error == (400, "invalid_client_metadata")


# Redirect URIs.


async def test_scheme_that_is_not_taken_does_not_reject_the_others(provider: Provider) -> None:
    provider.change(grant_types=CODE)
    uris = ["cursor://host/cb", "javascript:alert(1)", "com.example.app://cb", "https://a.example/"]
    reply = await register(provider, redirect_uris=uris)
    assert (reply.status, reply.json["redirect_uris"]) == (201, uris[2:])
    reply = await register(provider, redirect_uris=uris[:1])
    assert reply.error == (400, "invalid_redirect_uri")
    assert "cursor://host/cb" in reply.json["error_description"]
    provider.change(redirect_schemes=frozenset({"cursor"}))
    reply = await register(provider, redirect_uris=uris[:1])
    assert (reply.status, reply.json["redirect_uris"]) == (201, uris[:1])


async def test_redirect_uri_that_is_none_does_not_reject_the_others(provider: Provider) -> None:
    provider.change(grant_types=CODE)
    bad = ["http://app.example/cb", "https://app.example/#x", "https://app.example:0/", "/relative"]
    reply = await register(provider, redirect_uris=[*bad, "http://localhost/cb"])
    assert (reply.status, reply.json["redirect_uris"]) == (201, ["http://localhost/cb"])
    assert (await register(provider, redirect_uris=bad)).error == (400, "invalid_redirect_uri")


@pytest.mark.parametrize(
    "uri",
    ["javascript:alert(1)", "https://evil.example\\.app.example/", "", "https://a.example:abc/",
     "https://\u212aelvin.example/"],
)  # fmt: skip
async def test_page_that_is_no_url_is_left_out(provider: Provider, uri: str) -> None:
    reply = await register(provider, client_uri=uri, logo_uri=uri, tos_uri="https://a.example/tos")
    assert reply.status == 201
    assert "client_uri" not in reply.json
    assert "logo_uri" not in reply.json
    assert reply.json["tos_uri"] == "https://a.example/tos"


async def test_unknown_way_to_authenticate_is_replaced_and_said(provider: Provider) -> None:
    reply = await register(provider, token_endpoint_auth_method="client_secret_jwt")
    assert (reply.status, reply.json["token_endpoint_auth_method"]) == (201, "client_secret_basic")
    assert reply.json["client_secret"]


# Mode `public`: open, for clients that act for users.


def be_public(provider: Provider, **rules: Any) -> None:
    rules = {
        "grant_types": ("client_credentials", *CODE, "refresh_token", TOKEN_EXCHANGE),
        "registration_mode": "public", "redirect_schemes": frozenset({"cursor"}),
        "redirect_hosts": ("claude.ai", "*.apps.example"),
        "registration_scopes": ("orders:read", "orders:write"),
    } | rules  # fmt: skip
    provider.change(**rules)


async def register_openly(provider: Provider, **members: Any) -> Reply:
    return await provider.fetch("POST", "/register", JSON, json.dumps(members))


async def test_public_mode_takes_device_known_schemes_and_known_hosts_only(
    provider: Provider,
) -> None:
    be_public(provider)
    good = [
        "http://127.0.0.1/cb", "http://[::1]:7/cb", "http://localhost:33418/", "cursor://x/cb",
        "https://claude.ai/api/mcp/auth_callback", "https://a.b.apps.example/cb",
    ]  # fmt: skip
    bad = [
        "https://evil.example/cb", "https://apps.example/cb", "com.example.app:/cb",
        "https://claude.ai.evil.example/", "https://evilapps.example/", "vscode://x/cb",
    ]  # fmt: skip
    reply = await register_openly(provider, redirect_uris=bad[:1] + good + bad)
    assert (reply.status, reply.json["redirect_uris"]) == (201, good)
    for uri in bad:
        reply = await register_openly(provider, redirect_uris=[uri])
        assert reply.error == (400, "invalid_redirect_uri"), uri


async def test_public_mode_gives_a_client_without_secret_that_acts_for_users(
    provider: Provider,
) -> None:
    be_public(provider)
    reply = await register_openly(
        provider, redirect_uris=["http://127.0.0.1/cb"], scope="orders:read",
        token_endpoint_auth_method="client_secret_post",
        grant_types=["client_credentials", TOKEN_EXCHANGE, "authorization_code", "refresh_token"],
    )  # fmt: skip
    made = reply.json
    assert (reply.status, made["token_endpoint_auth_method"]) == (201, "none")
    assert made["grant_types"] == ["authorization_code", "refresh_token"]
    assert made["scope"] == "orders:read orders:write", (
        "for the next step it need not register again"
    )
    assert "client_secret" not in made
    assert made["client_secret_expires_at"] == 0
    assert (await register_openly(provider)).error == (400, "invalid_redirect_uri")
    assert (await register_openly(provider, grant_types=["client_credentials"])).status == 400
    assert (await provider.fetch("POST", "/createClient", {})).status == 400
    client = await provider.server.store.clients.get_client(made["client_id"])
    assert client is not None
    assert metadata_of(client).registered_by == "open"


async def test_registrations_are_bounded_for_each_source_and_in_all(provider: Provider) -> None:
    be_public(
        provider, registration_rate_limit=RateLimit(2, 3600.0, 2),
        total_registration_rate_limit=RateLimit(3, 3600.0, 3),
    )  # fmt: skip
    body = json.dumps({"redirect_uris": ["http://127.0.0.1/cb"]})

    async def status(source: str) -> int:
        reply = await provider.fetch("POST", "/register", JSON, body, source=source)
        return reply.status

    assert [await status("192.0.2.1") for _ in range(3)] == [201, 201, 429]
    assert [await status(f"198.51.100.{host}") for host in range(3)] == [201, 429, 429]


async def test_client_that_is_never_used_is_deleted_early_and_one_in_use_lives(
    provider: Provider,
) -> None:
    be_public(provider, registration_mode="open", unused_client_ttl_s=86400.0)
    idle, used = [(await register_openly(provider)).json for _ in range(2)]
    store, start = provider.store, provider.clock.now
    assert idle["client_secret_expires_at"] == int(start + 86400)
    provider.clock.now += 80_000
    assert await purge_unused(store, provider.clock.now) == 0
    bearer = {"Authorization": f"Bearer {idle['registration_access_token']}"} | JSON
    query = f"client_id={idle['client_id']}"
    body = json.dumps({"client_id": idle["client_id"]})
    renewed = await provider.fetch("PUT", "/register", bearer, body, query=query)
    assert renewed.json["client_secret_expires_at"] == int(start + 86400), "a PUT is no use"
    await provider.issue_token(used["client_id"], used["client_secret"], None, "x")
    kept = await store.clients.get_client(used["client_id"])
    assert kept is not None
    assert kept.expires_at == provider.clock.now + 30 * 86400
    provider.clock.now += 10_000
    assert await purge_unused(store, provider.clock.now) == 1
    assert await store.clients.get_client(idle["client_id"]) is None
    assert await provider.issue_token(used["client_id"], used["client_secret"], None, "x")
    assert not await store.records.list_records(UNUSED_CLIENT)


async def test_unused_client_that_an_operator_renews_stays(provider: Provider) -> None:
    be_public(provider, registration_mode="open", unused_client_ttl_s=86400.0)
    client_id = (await register_openly(provider)).json["client_id"]
    await provider.server.renew_client(client_id)
    assert await purge_unused(provider.store, provider.clock.now + 90_000) == 0
    assert await provider.store.clients.get_client(client_id)
    assert not await provider.store.records.list_records(UNUSED_CLIENT), "not looked at again"


async def test_client_that_is_first_used_twice_at_once_gets_both_tokens(
    provider: Provider,
) -> None:
    be_public(provider, registration_mode="open")
    made = (await register_openly(provider)).json
    pair = (made["client_id"], made["client_secret"], None)
    issued = await asyncio.gather(*(provider.issue_token(*pair, f"192.0.2.{n}") for n in range(4)))
    for one in issued:
        assert await provider.server.inspect_token(one.access_token)


# Names.


@pytest.mark.parametrize("name", ["\u3164", "   ", "-", "\u2800a", "\uffa0\u1160", "…"])
async def test_name_that_shows_nothing_is_rejected(provider: Provider, name: str) -> None:
    assert (await register(provider, client_name=name)).error == (400, "invalid_client_metadata")
    with pytest.raises(InvalidClientMetadataError):
        await provider.server.register_client(client_name=name)


@pytest.mark.parametrize("client_id", ["-", ".", "..", "--", "!"])
async def test_id_without_a_letter_or_digit_is_rejected(provider: Provider, client_id: str) -> None:
    assert (await create(provider, client_id=client_id)).error == (400, "invalid_client_metadata")
    with pytest.raises(InvalidClientMetadataError):
        await provider.server.register_client(client_id=client_id)


async def test_name_of_before_can_stay(provider: Provider, shop: str) -> None:
    store = provider.server.store
    client = await store.clients.get_client(shop)
    assert client is not None
    await store.clients.update_client(
        replace(client, client_name="-"), generation=client.generation
    )
    changed = await provider.server.update_client(
        shop, metadata=lambda old: replace(old, description="x")
    )
    assert changed is not None
    assert changed.client_name == "-"


def test_origin_of_a_registration_is_kept_and_is_not_the_clients_to_say() -> None:
    metadata = ClientMetadata(registered_by="open")
    assert metadata.described()["registered_by"] == "open"
    assert metadata.stored() == {"registered_by": "open"}


async def test_operator_sees_who_registered_a_client(provider: Provider) -> None:
    made = await register(provider, registered_by="operator")
    assert "registered_by" not in made.json
    client = await provider.server.store.clients.get_client(made.json["client_id"])
    assert client is not None
    assert metadata_of(client).registered_by == "token"


# Time.


async def test_wrong_assertion_costs_the_same_whatever_the_client(
    provider: Provider, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    key = make_key()
    await provider.server.register_client(
        client_id="signer",
        metadata=ClientMetadata(token_endpoint_auth_method="private_key_jwt", jwks=jwks(key)),
    )
    work: list[int] = []
    verify = verify_jwt

    def counted(token: str, keys: Any, algorithms: Any) -> Any:
        work.append(len(keys))
        return verify(token, keys, algorithms)

    monkeypatch.setattr(module, "verify_jwt", counted)
    for name in ("signer", "shop", "nobody"):
        bad = make_assertion(make_key(), name, provider.policy.issuer, provider.clock.now)
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        body = f"grant_type=client_credentials&client_assertion_type={kind}&client_assertion={bad}"
        assert (await provider.fetch("POST", "/token", FORM, body)).error == (401, "invalid_client")
    assert work == [1, 1, 1], "keys read and tried for each"
