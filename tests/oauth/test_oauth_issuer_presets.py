"""Tokens as well-known issuers document them, and their ID tokens, which are no access tokens.

Names, ids and claims are those of the vendors' documentation; audience, times and keys are ours.
"""

from __future__ import annotations

from typing import Any

import pytest
from support import settings
from support.jose_values import make_key
from support.provider import Provider, Reply
from support.servers.issuer import issuer

from gateway.oauth.claim_rules import ClaimView
from gateway.oauth.external_issuers.jwt import JwtIssuers
from gateway.oauth.jose import sign_jwt

API = "https://api.example.com"
KEY = make_key("RS256")
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
ENTRA: dict[str, Any] = {
    "aud": API, "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "aio": "AXQAi/8IAAAAtAAA", "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "azpacr": "0",
    "name": "Abe Lincoln", "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
    "preferred_username": "abeli@microsoft.com", "rh": "I", "scp": "access_as_user",
    "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": TENANT,
    "uti": "fqiBqXLPj0eQa82S-IYFAA", "ver": "2.0",
}  # fmt: skip
KEYCLOAK: dict[str, Any] = {
    "iss": "https://sso.example.com/realms/shop", "aud": [API, "account"],
    "jti": "trrtcc:1d5b0a36", "sub": "8c7c3c4d-9bd8-4b3c-8a4f-7f4cf1d0a7b5", "typ": "Bearer",
    "azp": "shop-app", "sid": "65a6c3c1", "acr": "1", "allowed-origins": ["https://shop.example"],
    "realm_access": {"roles": ["offline_access", "uma_authorization", "orders-clerk"]},
    "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
    "scope": "openid orders:read email", "email_verified": False, "preferred_username": "alice",
}  # fmt: skip
OKTA: dict[str, Any] = {
    "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
    "iss": "https://example.okta.com/oauth2/default", "aud": API, "sub": "alice@example.com",
    "cid": "nmdP1fcyvdVO11AL7ECm", "uid": "00ujmkLgagxeRrAg20g3",
    "scp": ["openid", "email", "flights", "custom"], "custom_claim": "CustomValue",
}  # fmt: skip
AUTH0: dict[str, Any] = {
    "iss": "https://my-domain.auth0.com/", "sub": "auth0|123456",
    "aud": [API, "https://my-domain.auth0.com/userinfo"], "azp": "my_client_id",
    "scope": "openid profile read:patients read:admin", "permissions": ["read:patients"],
    "https://myapp.example.com/roles": ["admin"],
}  # fmt: skip
COGNITO: dict[str, Any] = {
    "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:groups": ["testgroup"],
    "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example", "version": 2,
    "client_id": API, "origin_jti": "aaaaaaaa", "event_id": "64f513be", "token_use": "access",
    "scope": "phone openid resourceserver.1/appclient2", "jti": "aaaaaaab",
    "username": "my-test-user",
}  # fmt: skip
KUBERNETES: dict[str, Any] = {
    "aud": [API], "iss": "https://kubernetes.default.svc", "jti": "ea28ed49-2e11-4280-9ec5-bc3d1",
    "kubernetes.io": {
        "namespace": "my-namespace",
        "node": {"name": "my-node", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
        "pod": {"name": "my-pod", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
        "serviceaccount": {"name": "my-serviceaccount", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c"},
    },
    "sub": "system:serviceaccount:my-namespace:my-serviceaccount",
}  # fmt: skip


def signed(
    now: float,
    claims: dict[str, Any],
    changes: dict[str, Any] | None = None,
    *,
    typ: str | None = "JWT",
) -> str:
    times = {"iat": int(now), "nbf": int(now), "exp": int(now) + 600}
    said = {
        key: value for key, value in (claims | times | (changes or {})).items() if value is not None
    }
    header = {"alg": "RS256", "kid": KEY.kid} | ({"typ": typ} if typ else {})
    return sign_jwt(header, said, KEY)


async def validate(provider: Provider, token: str) -> Reply:
    return await provider.fetch("GET", "/validate", {"Authorization": f"Bearer {token}"})


async def trust(provider: Provider, jwks_uri: str, iss: str, **keys: Any) -> None:
    provider.trust(settings.jwt_issuer("idp", iss, jwks_uri, API, **keys))


DOCUMENTED = [
    (
        "keycloak", KEYCLOAK, "JWT", "idp:shop-app",
        "idp:8c7c3c4d-9bd8-4b3c-8a4f-7f4cf1d0a7b5", "openid orders:read email",
    ),
    (
        "entra", ENTRA, "JWT", "idp:6e74172b-be56-4843-9ff4-e66a39bb12e3",
        "idp:690222be-ff1a-4d56-abd1-7e4f7d38e474", "access_as_user",
    ),
    (
        "okta", OKTA, None, "idp:nmdP1fcyvdVO11AL7ECm", "idp:alice@example.com",
        "openid email flights custom",
    ),
    (
        "auth0", AUTH0, "at+jwt", "idp:my_client_id", "idp:auth0|123456",
        "openid profile read:patients read:admin",
    ),
    (
        "cognito", COGNITO, None, "idp:https%3A//api.example.com",
        "idp:aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "phone openid resourceserver.1/appclient2",
    ),
    (
        "kubernetes", KUBERNETES, None,
        "idp:system%3Aserviceaccount%3Amy-namespace%3Amy-serviceaccount",
        "idp:system%3Aserviceaccount%3Amy-namespace%3Amy-serviceaccount", "",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "claims", "typ", "client_id", "subject", "scope"),
    DOCUMENTED,
    ids=[row[0] for row in DOCUMENTED],
)
async def test_documented_token_is_read_as_its_issuer_means_it(
    provider: Provider, preset: str, claims: dict[str, Any], typ: str | None, client_id: str,
    subject: str, scope: str,
) -> None:  # fmt: skip
    async with issuer(KEY) as running:
        await trust(provider, running.jwks_uri, claims["iss"], preset=preset)
        reply = await validate(provider, signed(provider.clock.now, claims, typ=typ))
    assert reply.status == 200
    said = reply.json
    assert (said["client_id"], said["sub"], said["scope"]) == (client_id, subject, scope)


@pytest.mark.parametrize(
    ("preset", "claims", "changes"),
    [
        ("keycloak", KEYCLOAK, {"typ": "ID", "aud": API, "at_hash": "x", "scope": None}),
        ("keycloak", KEYCLOAK, {"typ": "Refresh"}),
        ("keycloak", KEYCLOAK, {"typ": None}),
        ("entra", ENTRA, {"azp": None, "scp": None, "nonce": "12345"}),
        ("okta", OKTA, {"cid": None, "scp": None, "amr": ["pwd"]}),
        ("auth0", AUTH0, {"azp": None, "scope": None, "nonce": "12345", "aud": API}),
        ("cognito", COGNITO, {"token_use": "id", "aud": API, "client_id": None}),
        ("cognito", COGNITO, {"token_use": None}),
        ("cognito", COGNITO, {"client_id": "another"}),
        ("cognito", COGNITO, {"aud": "https://other.example"}),
        (None, COGNITO, {"token_use": "id", "aud": API}),
        (None, KEYCLOAK, {"typ": "ID"}),
        ("kubernetes", KUBERNETES, {"sub": None}),
        ("kubernetes", KUBERNETES, {"aud": ["https://kubernetes.default.svc"]}),
    ],
)
async def test_id_token_and_token_of_another_resource_are_refused(
    provider: Provider, preset: str | None, claims: dict[str, Any], changes: dict[str, Any]
) -> None:
    async with issuer(KEY) as running:
        await trust(provider, running.jwks_uri, claims["iss"], preset=preset)
        token = signed(provider.clock.now, claims, changes)
        assert (await validate(provider, token)).status == 401


async def test_daemon_of_entra_has_its_roles_as_scopes(provider: Provider) -> None:
    daemon = {"scp": None, "roles": ["orders.read.all", "Two Words"], "idtyp": "app"}
    async with issuer(KEY) as running:
        await trust(provider, running.jwks_uri, ENTRA["iss"], preset="entra")
        now = provider.clock.now
        reply = await validate(provider, signed(now, ENTRA, daemon))
        assert reply.json["scope"] == "orders.read.all"
        # The roles of a user are no scopes of the application that acts for the user.
        reply = await validate(provider, signed(now, ENTRA, {"roles": ["admin"]}))
        assert reply.json["scope"] == "access_as_user"


async def test_claims_are_named_by_path(provider: Provider) -> None:
    async with issuer(KEY) as running:
        await trust(
            provider, running.jwks_uri, KEYCLOAK["iss"],
            client_claim="preferred_username", subject_claim='resource_access."a.b".id',
            scope_claims=["scope", "realm_access.roles"],
        )  # fmt: skip
        access = {"account": {"roles": []}, "a.b": {"id": "7"}}
        token = signed(provider.clock.now, KEYCLOAK, {"resource_access": access})
        said = (await validate(provider, token)).json
        assert (said["client_id"], said["sub"]) == ("idp:alice", "idp:7")
        assert said["scope"].split()[-1] == "orders-clerk"
        # Without the claim there is no subject: `sub` would be someone else of that name.
        reply = await validate(provider, signed(provider.clock.now, KEYCLOAK))
        assert (reply.status, reply.json.get("sub")) == (200, None)
        for wrong in ({"preferred_username": None}, {"resource_access": {"a.b": {"id": 7}}}):
            token = signed(provider.clock.now, KEYCLOAK, wrong)
            assert (await validate(provider, token)).status == 401


async def test_namespaced_claim_is_one_name(provider: Provider) -> None:
    async with issuer(KEY) as running:
        await trust(
            provider, running.jwks_uri, AUTH0["iss"], preset="auth0",
            scope_claims=["permissions", "https://myapp.example.com/roles"],
        )  # fmt: skip
        reply = await validate(provider, signed(provider.clock.now, AUTH0))
        assert reply.json["scope"] == "read:patients admin"


@pytest.mark.parametrize(
    ("allowed", "typ", "status"),
    [
        (["at+jwt"], "at+jwt", 200), (["at+jwt"], "application/AT+JWT", 200),
        (["at+jwt"], "JWT", 401), (["at+jwt"], None, 401), (["JWT"], None, 200),
        (["JWT"], "at+jwt", 401), (["application/secevent+jwt"], "secevent+jwt", 200),
    ],
)  # fmt: skip
async def test_type_must_be_one_that_is_listed(
    provider: Provider, allowed: list[str], typ: str | None, status: int
) -> None:
    async with issuer(KEY) as running:
        await trust(provider, running.jwks_uri, OKTA["iss"], preset="okta", typ=allowed)
        assert (
            await validate(provider, signed(provider.clock.now, OKTA, typ=typ))
        ).status == status


async def test_several_entries_of_one_issuer_differ_by_their_audience(provider: Provider) -> None:
    iss = KEYCLOAK["iss"]
    async with issuer(KEY) as running:
        provider.trust(
            settings.jwt_issuer("orders", iss, running.jwks_uri, "urn:orders"),
            settings.jwt_issuer(
                "stock", iss, running.jwks_uri, "urn:stock", client_claim="preferred_username"
            ),
        )
        now = provider.clock.now
        for aud, client_id in (
            ("urn:orders", "orders:shop-app"), (["urn:stock"], "stock:alice"), ("urn:x", None),
            (["urn:stock", "urn:orders"], "orders:shop-app"),
        ):  # fmt: skip
            reply = await validate(provider, signed(now, KEYCLOAK, {"aud": aud}))
            assert reply.json.get("client_id") == client_id
        assert running.requests == ["/jwks"], "one issuer has one set of keys"


async def test_of_what_an_issuer_says_only_what_rules_name_is_kept(provider: Provider) -> None:
    """However large a token is, and however many are cached."""
    async with issuer(KEY) as running:
        await trust(provider, running.jwks_uri, OKTA["iss"], preset="okta")
        many = {f"claim-{number}": "x" * 100 for number in range(100)}
        token = signed(provider.clock.now, OKTA, many)
        found = (await provider.validator.lookup(token)).token
        assert found.extra_claims == {}
        listed = settings.jwt_issuer("idp", OKTA["iss"], running.jwks_uri, API, preset="okta")
        kept = {"claim-7", "sub", "client_id"}
        issuers = JwtIssuers(
            [listed], provider.remote_keys, extra_claims=kept, wall_clock=provider.clock
        )
        again = await issuers.find(token)
    assert again is not None
    assert again.extra_claims == {"claim-7": "x" * 100}
    assert "x" * 100 not in repr(again)
    view = ClaimView(kept, issuer="http://gateway.test")
    assert view(again) == {
        "claim-7": "x" * 100, "sub": "idp:alice@example.com",
        "client_id": "idp:nmdP1fcyvdVO11AL7ECm",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "x"}, "another issuer is rejected: audience"),
        ({"exp": 1}, "another issuer is rejected: expired"),
        ({"token_use": "id"}, "issuer idp is rejected: no access token"),
        ({"cid": None}, "issuer idp is rejected: no usable client or subject"),
    ],
)
async def test_log_says_why_a_jwt_is_rejected(
    provider: Provider, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], why: str
) -> None:
    caplog.set_level("DEBUG")
    async with issuer(KEY) as running:
        await trust(provider, running.jwks_uri, OKTA["iss"], preset="okta")
        token = signed(provider.clock.now, OKTA, changes)
        assert (await validate(provider, token)).status == 401
    assert why in caplog.text
    assert token not in caplog.text
