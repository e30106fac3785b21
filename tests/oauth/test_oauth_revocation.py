"""`/revoke` (RFC 7009) and `/introspect` (RFC 7662)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest
from support.jose_values import make_key
from support.provider import FORM, Provider, basic
from support.stores.faults import break_store

from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.jose import sign_jwt


@pytest.fixture(autouse=True)
async def clients(provider: Provider) -> None:
    for client_id in ("shop", "other"):
        await provider.server.register_client(client_id=client_id, client_secret="secret")


async def issue(provider: Provider, client_id: str = "shop") -> str:
    return (await provider.issue_token(client_id, "secret", None, "x")).access_token


async def test_revoked_token_stops_at_once(provider: Provider) -> None:
    token = await issue(provider)
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await provider.fetch("GET", "/validate", bearer)).status == 200
    reply = await provider.fetch(
        "POST", "/revoke", basic("shop", "secret") | FORM, f"token={token}"
    )
    assert (reply.status, reply.json) == (200, {})
    assert reply.headers["Cache-Control"] == "no-store"
    assert (await provider.fetch("GET", "/validate", bearer)).status == 401


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense"])
async def test_hint_does_not_decide_what_is_revoked(provider: Provider, hint: str) -> None:
    token = await issue(provider)
    body = urlencode({"token": token, "token_type_hint": hint})
    assert (
        await provider.fetch("POST", "/revoke", basic("shop", "secret") | FORM, body)
    ).status == 200
    assert await provider.server.inspect_token(token) is None


async def test_unknown_token_is_as_good_as_revoked(provider: Provider) -> None:
    for token in ("unknown", "a.b.c", "x" * 5000):
        reply = await provider.fetch(
            "POST", "/revoke", basic("shop", "secret") | FORM, f"token={token}"
        )
        assert reply.status == 200


async def test_token_of_another_client_is_not_revoked(provider: Provider) -> None:
    token = await issue(provider, "other")
    reply = await provider.fetch(
        "POST", "/revoke", basic("shop", "secret") | FORM, f"token={token}"
    )
    assert reply.error == (400, "unauthorized_client")
    assert await provider.server.inspect_token(token) is not None


async def test_token_of_another_issuer_cannot_be_revoked_here(provider: Provider) -> None:
    token = sign_jwt({"alg": "ES256"}, {"iss": "https://elsewhere.example"}, make_key())
    reply = await provider.fetch(
        "POST", "/revoke", basic("shop", "secret") | FORM, f"token={token}"
    )
    assert reply.error == (400, "unsupported_token_type")


@pytest.mark.parametrize("path", ["/revoke", "/introspect"])
async def test_caller_must_prove_who_it_is(provider: Provider, path: str) -> None:
    token = await issue(provider)
    for headers in (FORM, basic("shop", "wrong") | FORM, FORM | {"Authorization": "Bearer x"}):
        reply = await provider.fetch("POST", path, headers, f"token={token}")
        assert reply.error == (401, "invalid_client")
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")
    assert await provider.server.inspect_token(token) is not None


@pytest.mark.parametrize("path", ["/revoke", "/introspect"])
@pytest.mark.parametrize("body", ["", "token=", "token=a&token=a"])
async def test_token_must_be_given_once(provider: Provider, path: str, body: str) -> None:
    reply = await provider.fetch("POST", path, basic("shop", "secret") | FORM, body)
    assert reply.error == (400, "invalid_request")
    reply = await provider.fetch("POST", path, basic("shop", "secret"), query="token=x")
    assert reply.status == 400, "a token in a URL ends up in logs"


@pytest.mark.parametrize("path", ["/revoke", "/introspect"])
async def test_only_post_is_taken(provider: Provider, path: str) -> None:
    reply = await provider.fetch("GET", path, basic("shop", "secret"))
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")


async def test_valid_token_is_described_in_the_words_of_rfc_7662(provider: Provider) -> None:
    token = await issue(provider)
    reply = await provider.fetch(
        "POST", "/introspect", basic("other", "secret") | FORM, f"token={token}"
    )
    assert (reply.status, reply.json) == (
        200,
        {
            "active": True, "client_id": "shop", "sub": "shop", "scope": "orders:read",
            "token_type": "Bearer", "iss": "http://gateway.test",
            "iat": 1_000_000, "exp": 1_003_600,
        },
    )  # fmt: skip
    assert reply.headers["Cache-Control"] == "no-store"


async def test_any_other_token_is_not_active_and_nothing_else(provider: Provider) -> None:
    expired, revoked = await issue(provider), await issue(provider)
    await provider.server.revoke_token(revoked)
    provider.clock.now += 3600
    for token in (expired, revoked, "unknown", "a.b.c"):
        reply = await provider.fetch(
            "POST", "/introspect", basic("shop", "secret") | FORM, f"token={token}"
        )
        assert (reply.status, reply.body) == (200, b'{"active":false}')


async def test_public_client_may_revoke_but_not_introspect(provider: Provider) -> None:
    provider.change(grant_types=("client_credentials", "authorization_code"))
    await provider.server.register_client(
        client_id="app",
        metadata=ClientMetadata(
            grant_types=("authorization_code",),
            token_endpoint_auth_method="none",
            redirect_uris=("https://app.example/back",),
        ),
    )
    reply = await provider.fetch("POST", "/introspect", FORM, "client_id=app&token=x")
    assert reply.error == (400, "unauthorized_client")
    reply = await provider.fetch("POST", "/revoke", FORM, "client_id=app&token=x")
    assert reply.status == 200


async def test_store_outage_is_503(provider: Provider, tmp_path: Path) -> None:
    break_store(tmp_path / "gateway.db")
    for path in ("/revoke", "/introspect"):
        reply = await provider.fetch("POST", path, basic("shop", "secret") | FORM, "token=x")
        assert reply.error == (503, "temporarily_unavailable")
