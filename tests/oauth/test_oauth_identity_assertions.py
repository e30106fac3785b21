"""Identity assertions: an identity provider's word that a client may act for a user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
from support import settings
from support.jose_values import make_key, make_proof
from support.provider import FORM, Provider, Reply, basic
from support.servers.issuer import Issuer, issuer

from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.jose import sign_jwt
from gateway.oauth.policy import JWT_BEARER, IdentityAssertionRule

US = "http://gateway.test"
CORP = "https://login.corp.example"
KEY = make_key()
APP = basic("app", "secret")


@pytest.fixture
async def corp(provider: Provider) -> AsyncIterator[Issuer]:
    """An identity provider whose assertions `app` and others may use."""
    async with issuer(KEY) as running:
        provider.trust(
            settings.jwt_issuer("corp", CORP, running.jwks_uri, "https://x", access_tokens=False)
        )
        use(provider, IdentityAssertionRule("corp", (), None, 600.0))
        metadata = ClientMetadata(grant_types=("client_credentials", JWT_BEARER))
        for name in ("app", "other"):
            await provider.server.register_client(
                client_id=name, client_secret="secret", metadata=metadata
            )
        yield running


def use(provider: Provider, *rules: IdentityAssertionRule) -> None:
    provider.change(
        identity_assertions=rules, grant_types=("client_credentials", JWT_BEARER),
        audiences=("https://mcp.example",),
    )  # fmt: skip


def make_assertion(now: float, *, typ: str = "oauth-id-jag+jwt", **claims: Any) -> str:
    said = {
        "iss": CORP, "sub": "alice", "aud": US, "client_id": "app", "jti": f"j{now}",
        "exp": int(now) + 300, "iat": int(now), "scope": "orders:read",
    } | claims  # fmt: skip
    said = {name: value for name, value in said.items() if value is not None}
    return sign_jwt({"alg": "ES256", "kid": KEY.kid, "typ": typ}, said, KEY)


async def request_token(
    provider: Provider, assertion: str, headers: dict[str, str] | None = None, **form: str
) -> Reply:
    body = urlencode({"grant_type": JWT_BEARER, "assertion": assertion} | form)
    return await provider.fetch(
        "POST", "/token", FORM | (APP if headers is None else headers), body
    )


async def test_client_acts_for_the_user_that_the_identity_provider_names(
    provider: Provider, corp: Issuer
) -> None:
    assertion = make_assertion(provider.clock.now, resource="https://mcp.example")
    reply = await request_token(provider, assertion)
    assert reply.status == 200, reply.json
    assert (reply.json["scope"], reply.json["expires_in"]) == ("orders:read", 600)
    assert "refresh_token" not in reply.json
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert (token.client_id, token.claims["sub"]) == ("app", "corp:alice")
    assert token.claims["aud"] == ["https://mcp.example"]


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": f"{US}/token"}, {"aud": "https://elsewhere.example"}, {"client_id": "other"},
        {"client_id": None}, {"jti": None}, {"sub": None}, {"exp": None}, {"iat": None},
        {"exp": 1_000_000 - 61}, {"exp": 1_000_000 + 3700}, {"iat": 1_000_000 + 61},
        {"iss": "https://evil.example"}, {"typ": "jwt"}, {"typ": "at+jwt"}, {"resource": [7]},
        {"cnf": {"jkt": 7}}, {"cnf": "x"},
    ],
)  # fmt: skip
async def test_assertion_that_says_something_else_is_rejected(
    provider: Provider, corp: Issuer, claims: dict[str, Any]
) -> None:
    assertion = make_assertion(provider.clock.now, **claims)
    assert (await request_token(provider, assertion)).error == (400, "invalid_grant")


async def test_client_must_authenticate_and_be_registered_for_the_grant(
    provider: Provider, corp: Issuer
) -> None:
    assertion = make_assertion(provider.clock.now)
    assert (await request_token(provider, assertion, {})).error == (401, "invalid_client")
    reply = await request_token(provider, assertion, {}, client_id="app")
    assert reply.error == (401, "invalid_client")
    await provider.server.register_client(client_id="plain", client_secret="secret")
    reply = await request_token(provider, assertion, basic("plain", "secret"))
    assert reply.error == (400, "unauthorized_client")
    reply = await request_token(provider, assertion, basic("other", "secret"))
    assert reply.error == (400, "invalid_grant")
    # None of that has used it up.
    assert (await request_token(provider, assertion)).status == 200


async def test_assertion_is_good_once(provider: Provider, corp: Issuer) -> None:
    assertion = make_assertion(provider.clock.now)
    assert (await request_token(provider, assertion)).status == 200
    reply = await request_token(provider, assertion)
    assert reply.error == (400, "invalid_grant")


async def test_scopes_are_those_of_the_assertion_the_rule_and_the_client(
    provider: Provider, corp: Issuer
) -> None:
    def both(jti: str, scope: str | None = "orders:read orders:write unknown") -> str:
        return make_assertion(provider.clock.now, jti=jti, scope=scope)

    assert (await request_token(provider, both("1"))).json["scope"] == "orders:read orders:write"
    reply = await request_token(provider, both("2"), scope="orders:write")
    assert reply.json["scope"] == "orders:write"
    use(provider, IdentityAssertionRule("corp", ("app",), ("orders:read",), None))
    assert (await request_token(provider, both("3"))).json["scope"] == "orders:read"
    reply = await request_token(provider, both("4"), scope="orders:write")
    assert reply.error == (400, "invalid_scope")
    assert (await request_token(provider, both("5", "unknown"))).error == (400, "invalid_scope")
    assert (await request_token(provider, both("6", None))).json["scope"] == "orders:read"
    use(provider, IdentityAssertionRule("corp", ("other",), None, None))
    assert (await request_token(provider, both("7"))).error == (400, "invalid_grant")


async def test_audience_stays_within_the_resource_of_the_assertion(
    provider: Provider, corp: Issuer
) -> None:
    assertion = make_assertion(provider.clock.now, resource="https://mcp.example")
    reply = await request_token(provider, assertion, resource=US)
    assert reply.error == (400, "invalid_target")


async def test_bound_assertion_needs_a_proof_of_its_key(provider: Provider, corp: Issuer) -> None:
    key = make_key()
    assertion = make_assertion(provider.clock.now, cnf={"jkt": key.thumbprint()})
    assert (await request_token(provider, assertion)).error == (400, "invalid_grant")
    assertion = make_assertion(provider.clock.now, jti="2", cnf={"jkt": key.thumbprint()})
    proof = make_proof(key, "POST", f"{US}/token", provider.clock.now)
    reply = await request_token(provider, assertion, APP | {"DPoP": proof})
    assert (reply.status, reply.json["token_type"]) == (200, "DPoP")


async def test_metadata_lists_the_profile_where_it_is_configured(
    provider: Provider, corp: Issuer
) -> None:
    path = "/.well-known/oauth-authorization-server"
    said = (await provider.fetch("GET", path)).json
    assert said["authorization_grant_profiles_supported"] == [
        "urn:ietf:params:oauth:grant-profile:id-jag"
    ]
    provider.change(identity_assertions=())
    said = (await provider.fetch("GET", path)).json
    assert "authorization_grant_profiles_supported" not in said
