"""Tokens of other issuers: JWTs by their keys, opaque ones by asking, all from the cache."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from joserfc.jwk import ECKey, Key, OKPKey
from support import settings
from support.deadlines import until
from support.jose_values import make_key
from support.provider import Provider, Reply
from support.servers.issuer import Issuer, issuer

from gateway.oauth.external_issuers.claims import read_scopes
from gateway.oauth.jose import choose_keys, read_jwt, read_usable_keys, sign_jwt, verify_jwt
from gateway.proxy.upstream_head import render_identity

CORP = "https://login.corp.example"
KEY = make_key()


def make_jwt(
    now: float, key: Key = KEY, *, alg: str = "ES256", typ: str | None = "at+jwt", **claims: Any
) -> str:
    said = {
        "iss": CORP, "aud": "https://api.example", "sub": "alice", "client_id": "web",
        "scope": "orders:read", "exp": int(now) + 600, "iat": int(now), "jti": "j",
    } | claims  # fmt: skip
    said = {name: value for name, value in said.items() if value is not None}
    header = {"alg": alg, "kid": key.kid} | ({"typ": typ} if typ else {})
    return sign_jwt(header, said, key)


@pytest.fixture
async def corp(provider: Provider) -> AsyncIterator[Issuer]:
    """An issuer whose JWTs are accepted."""
    async with issuer(KEY) as running:
        provider.trust(settings.jwt_issuer("corp", CORP, running.jwks_uri, "https://api.example"))
        yield running


async def validate(provider: Provider, token: str) -> Reply:
    return await provider.fetch("GET", "/validate", {"Authorization": f"Bearer {token}"})


async def test_external_jwt_is_accepted_and_its_client_is_not_one_of_ours(
    provider: Provider, corp: Issuer
) -> None:
    reply = await validate(provider, make_jwt(provider.clock.now))
    assert reply.status == 200
    assert reply.json["client_id"] == "corp:web"
    assert reply.json["sub"] == "corp:alice"
    assert reply.json["iss"] == CORP
    assert reply.json["scope"] == "orders:read"
    assert reply.json["exp"] == 1_000_600


@pytest.mark.parametrize(
    ("claims", "client_id"),
    [
        ({"client_id": None, "azp": "spa"}, "corp:spa"),
        ({"client_id": None}, "corp:alice"),
        ({"client_id": "a b\r\nc"}, "corp:a%20b%0D%0Ac"),
        ({"client_id": "å"}, "corp:%C3%A5"),
    ],
)
async def test_client_of_an_external_token_is_named_safely(
    provider: Provider, corp: Issuer, claims: dict[str, Any], client_id: str
) -> None:
    reply = await validate(provider, make_jwt(provider.clock.now, **claims))
    assert reply.json["client_id"] == client_id


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("alice", "corp:alice"),
        ("corp:alice", "corp:corp%3Aalice"),
        ("oidc:ceo@corp.example", "corp:oidc%3Aceo@corp.example"),
        ("å b", "corp:%C3%A5%20b"),
    ],
)
async def test_subject_of_another_issuer_is_no_user_of_ours_and_no_one_elses(
    provider: Provider, corp: Issuer, subject: str, expected: str
) -> None:
    act = {"sub": "billing", "iss": CORP, "act": {"sub": subject, "client_id": "x:y"}}
    token = make_jwt(provider.clock.now, sub=subject, username=subject, act=act)
    found = await provider.validator.lookup(token)
    line = f"X-Token-Subject: {expected.replace('%', '%25')}\r\n"  # percent-encoded, as any value
    assert line.encode() in render_identity(found.token)
    said = (await validate(provider, token)).json
    assert (said["sub"], said["username"]) == (expected, expected)
    inner = {"sub": expected, "client_id": "corp:x%3Ay"}
    assert said["act"] == {"sub": "corp:billing", "iss": CORP, "act": inner}


async def test_client_that_is_its_own_subject_has_no_other(
    provider: Provider, corp: Issuer
) -> None:
    token = make_jwt(provider.clock.now, sub="web")
    found = await provider.validator.lookup(token)
    assert b"X-Client-Id: corp:web" in render_identity(found.token)
    assert b"Subject" not in render_identity(found.token)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 7}, {"sub": ["alice"]}, {"username": {"n": 1}}, {"act": "billing"},
        {"may_act": "billing"}, {"aud": ["https://api.example", 7]},
        {"cnf": {"jkt": 7}}, {"cnf": {"x5t#S256": ["x"]}}, {"cnf": "x"},
    ],
)  # fmt: skip
async def test_claim_that_decides_and_cannot_be_used_is_not_taken_for_absent(
    provider: Provider, corp: Issuer, claims: dict[str, Any]
) -> None:
    assert (await validate(provider, make_jwt(provider.clock.now, **claims))).status == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example"}, {"aud": None}, {"exp": None}, {"exp": "later"},
        {"exp": 1_000_000 - 60}, {"nbf": 1_000_000 + 61}, {"iat": 1_000_000 + 61},
        {"client_id": None, "sub": None}, {"client_id": 7}, {"client_id": "x" * 256},
        {"iss": "https://elsewhere.example"}, {"iss": None},
    ],
)  # fmt: skip
async def test_external_jwt_that_says_something_else_is_refused(
    provider: Provider, corp: Issuer, claims: dict[str, Any]
) -> None:
    assert (await validate(provider, make_jwt(provider.clock.now, **claims))).status == 401


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "raw",
    [
        '"1000600"', "true", "null", "[]", "{}", '""', "NaN", "Infinity", "1e999", "1e13", "-1e13",
        '"NaN"', "1000600s", "0x10",
    ],
)  # fmt: skip
async def test_time_that_is_no_number_is_not_taken_for_absent(
    provider: Provider, corp: Issuer, claim: str, raw: str
) -> None:
    claims = read_jwt(make_jwt(provider.clock.now, nbf=1)).claims
    text = re.sub(rf'"{claim}":\d+', f'"{claim}":{raw}', msgspec.json.encode(claims).decode())
    assert raw in text
    written: Any = msgspec.Raw(text.encode())  # also what is no JSON
    token = sign_jwt({"alg": "ES256", "kid": KEY.kid}, written, KEY)
    assert (await validate(provider, token)).status == 401


async def test_clock_of_the_issuer_may_be_a_little_off(provider: Provider, corp: Issuer) -> None:
    now = provider.clock.now
    for token in (
        make_jwt(now, exp=now - 59),
        make_jwt(now, nbf=now + 59),
        make_jwt(now, iat=now + 59),
    ):
        assert (await validate(provider, token)).status == 200
    token = make_jwt(now, exp=now + 10)
    assert (await validate(provider, token)).status == 200
    provider.clock.now += 71
    assert (await validate(provider, token)).status == 401


async def test_forged_jwt_is_refused(provider: Provider, corp: Issuer) -> None:
    now = provider.clock.now
    good = make_jwt(now)
    head, claims, _ = good.split(".")
    impostor = make_key()
    assert KEY.kid is not None
    impostor.dict_value["kid"] = KEY.kid
    for forged in (
        make_jwt(now, make_key()), make_jwt(now, impostor), f"{head}.{claims}.",
        make_jwt(now, make_key("EdDSA"), alg="EdDSA"), make_jwt(now, typ="dpop+jwt"),
        make_jwt(now, typ="application/logout+jwt"),
    ):  # fmt: skip
        assert (await validate(provider, forged)).status == 401
    assert (await validate(provider, make_jwt(now, typ=None))).status == 200


async def test_keys_are_fetched_once_for_many_tokens_at_once(
    provider: Provider, corp: Issuer
) -> None:
    corp.gate.clear()
    now = provider.clock.now
    decision_clients = [
        asyncio.create_task(validate(provider, make_jwt(now, jti=f"{n}"))) for n in range(20)
    ]
    await until(lambda: bool(corp.requests))
    corp.gate.set()
    assert {(await one).status for one in decision_clients} == {200}
    assert corp.requests == ["/jwks"]
    assert (await validate(provider, make_jwt(now, jti="later"))).status == 200
    assert corp.requests == ["/jwks"]


def test_keys_are_chosen_by_type_curve_algorithm_and_use_beside_their_id() -> None:
    ours, ed = make_key(), make_key("EdDSA")
    members = [
        {**OKPKey.generate_key("X25519").as_dict(private=False), "kid": "k"},
        {**ECKey.generate_key("P-384").as_dict(private=False), "kid": "k"},
        {**make_key().as_dict(private=False), "kid": "k", "use": "enc"},
        {**make_key().as_dict(private=False), "kid": "k", "key_ops": ["deriveBits"]},
        {**make_key().as_dict(private=False), "kid": "k", "alg": "ES384"},
        {**make_key("RS256").as_dict(private=False), "kid": "k"},
        *({key: value for key, value in make_key().as_dict(private=False).items() if key != "kid"}
          for _ in range(8)),
        {**ours.as_dict(private=False), "kid": "k", "key_ops": ["verify"]},
        {**ed.as_dict(private=False), "kid": "k"},
    ]  # fmt: skip
    keys = read_usable_keys({"keys": members})
    for key, alg in ((ours, "ES256"), (ed, "EdDSA")):
        token = sign_jwt({"alg": alg, "kid": "k"}, {"sub": "x"}, key)
        assert verify_jwt(token, keys, ["ES256", "EdDSA"]).text("sub") == "x"
    assert len(choose_keys(keys, {"alg": "EdDSA", "kid": "k"})) == 1
    assert len(choose_keys(keys, {"alg": "ES256", "kid": "k"})) == 9


async def test_cached_external_token_costs_nothing(provider: Provider, corp: Issuer) -> None:
    token = make_jwt(provider.clock.now)
    await validate(provider, token)
    corp.status = 500
    assert provider.validator.cached(token) is not None
    assert (await validate(provider, token)).status == 200


async def test_new_key_is_found_but_a_made_up_one_does_not_cause_a_fetch_each(
    provider: Provider, corp: Issuer
) -> None:
    new = make_key()
    await validate(provider, make_jwt(provider.clock.now))
    corp.keys.append(new)
    provider.clock.now += 6
    assert (await validate(provider, make_jwt(provider.clock.now, new))).status == 200
    assert len(corp.requests) == 2
    provider.clock.now += 6
    for number in range(5):
        token = make_jwt(provider.clock.now, make_key(), jti=f"{number}")
        assert (await validate(provider, token)).status in {401, 503}
    assert len(corp.requests) == 3


async def test_keys_that_cannot_be_had_are_503_and_never_invalid(
    provider: Provider, corp: Issuer
) -> None:
    token = make_jwt(provider.clock.now)
    for status, raw in ((500, None), (200, b"not json"), (302, b""), (200, b"x" * 600_000)):
        corp.status, corp.raw = status, raw
        reply = await validate(provider, token)
        assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")
        provider.clock.now += 6
    corp.status, corp.raw = 200, None
    assert (await validate(provider, token)).status == 200, "it was not remembered as invalid"


async def test_old_keys_are_used_while_new_ones_cannot_be_had(
    provider: Provider, corp: Issuer
) -> None:
    await validate(provider, make_jwt(provider.clock.now))
    corp.status = 500
    provider.clock.now += 700
    await provider.remote_keys.refresh()
    assert len(corp.requests) == 2, "it was tried ahead of need"
    assert (await validate(provider, make_jwt(provider.clock.now))).status == 200
    provider.clock.now += 86400
    assert (await validate(provider, make_jwt(provider.clock.now))).status == 503


async def test_keys_are_refreshed_ahead_of_need(provider: Provider, corp: Issuer) -> None:
    provider.remote_keys.watch([corp.jwks_uri])
    await provider.remote_keys.refresh()
    assert corp.requests == ["/jwks"], "before anybody asked"
    await provider.remote_keys.refresh()
    assert corp.requests == ["/jwks"]
    provider.clock.now += 601
    await provider.remote_keys.refresh()
    assert len(corp.requests) == 2


async def test_empty_key_set_does_not_end_all_keys(provider: Provider, corp: Issuer) -> None:
    await validate(provider, make_jwt(provider.clock.now))
    corp.keys.clear()
    provider.clock.now += 700
    await provider.remote_keys.refresh()
    assert (await validate(provider, make_jwt(provider.clock.now))).status == 200


# Opaque tokens.


@pytest.fixture
async def legacy(provider: Provider) -> AsyncIterator[Issuer]:
    """An issuer that is asked about its tokens."""
    async with issuer() as running:
        server = settings.introspection_server(
            name="legacy", endpoint=running.endpoint, client_id="gate:way", client_secret="p w",
            default_ttl="30s",
        )  # fmt: skip
        provider.trust(servers=[server])
        yield running


async def test_opaque_token_is_asked_about_once_and_then_cached(
    provider: Provider, legacy: Issuer
) -> None:
    legacy.tokens["abc"] = {
        "active": True, "client_id": "erp", "scope": "orders:read", "exp": 1_000_600,
    }  # fmt: skip
    for _ in range(3):
        reply = await validate(provider, "abc")
        assert (reply.status, reply.json["client_id"]) == (200, "legacy:erp")
    assert legacy.requests == ["abc"]
    credentials = base64.b64decode(legacy.authorizations[0].removeprefix("Basic "))
    assert credentials == b"gate%3Away:p+w", "form-encoded (RFC 6749 section 2.3.1)"
    provider.clock.now += 61
    await validate(provider, "abc")
    assert legacy.requests == ["abc", "abc"]


async def test_token_is_asked_about_once_however_many_wait(
    provider: Provider, legacy: Issuer
) -> None:
    legacy.tokens["abc"] = {"active": True, "client_id": "erp"}
    legacy.gate.clear()
    decision_clients = [asyncio.create_task(validate(provider, "abc")) for _ in range(10)]
    await until(lambda: bool(legacy.requests))
    legacy.gate.set()
    assert {(await one).status for one in decision_clients} == {200}
    assert legacy.requests == ["abc"]


@pytest.mark.parametrize(
    "response",
    [
        {"active": False}, {"active": "true", "client_id": "x"}, {}, {"active": True},
        {"active": True, "client_id": "x", "exp": 999_999},
        {"active": True, "client_id": "x", "nbf": "tomorrow"},
        # Alive, but no access tokens: as Hydra, Keycloak and others tell refresh and ID tokens.
        {"active": True, "client_id": "x", "token_use": "refresh_token"},
        {"active": True, "client_id": "x", "token_type": "refresh_token"},
        {"active": True, "client_id": "x", "typ": "Refresh"},
        {"active": True, "client_id": "x", "typ": "Offline", "token_use": ["x"]},
        {"active": True, "client_id": "x", "token_type": "Refresh_Token"},
        {"active": True, "client_id": "x", "token_use": "authorization_code"},
        {"active": True, "client_id": "x", "typ": "logout+jwt"},
        {"active": True, "client_id": "x", "sub": 7},
        {"active": True, "client_id": "x", "aud": 7},
        {"active": True, "client_id": "x", "username": ["alice"]},
        {"active": True, "client_id": "x", "cnf": {"jkt": 7}},
        {"active": True, "client_id": "x", "typ": "ID"},
    ],
)  # fmt: skip
async def test_token_that_is_not_active_is_refused_and_remembered(
    provider: Provider, legacy: Issuer, response: dict[str, Any]
) -> None:
    legacy.tokens["abc"] = response
    for _ in range(2):
        assert (await validate(provider, "abc")).status == 401
    assert legacy.requests == ["abc"]


async def test_end_that_is_not_reported_is_the_configured_one(
    provider: Provider, legacy: Issuer
) -> None:
    legacy.tokens["abc"] = {"active": True, "client_id": "erp"}
    assert (await validate(provider, "abc")).json["expires_in"] == 30


async def test_server_that_does_not_respond_is_503_and_never_invalid(
    provider: Provider, legacy: Issuer
) -> None:
    legacy.tokens["abc"] = {"active": True, "client_id": "erp"}
    legacy.status = 500
    assert (await validate(provider, "abc")).status == 503
    legacy.status = 200
    assert (await validate(provider, "abc")).status == 200


async def test_own_tokens_are_not_shown_to_other_servers(
    provider: Provider, legacy: Issuer
) -> None:
    await provider.server.register_client(client_id="shop", client_secret="secret")
    token = (await provider.issue_token("shop", "secret", None, "x")).access_token
    assert (await validate(provider, token)).status == 200
    assert legacy.requests == []


async def test_only_tokens_with_the_prefix_and_audience_of_a_server_are_its(
    provider: Provider, legacy: Issuer
) -> None:
    server = settings.introspection_server(
        name="legacy", endpoint=legacy.endpoint, client_id="g", client_secret="s",
        audience=["urn:gateway"], token_prefix="legacy-",
    )  # fmt: skip
    provider.trust(servers=[server])
    legacy.tokens = {
        "other": {"active": True, "client_id": "x", "aud": "urn:gateway"},
        "legacy-1": {"active": True, "client_id": "x", "aud": ["urn:gateway"]},
        "legacy-2": {"active": True, "client_id": "x", "aud": "urn:other"},
    }
    assert (await validate(provider, "other")).status == 401
    assert (await validate(provider, "legacy-1")).status == 200
    assert (await validate(provider, "legacy-2")).status == 401
    assert legacy.requests == ["legacy-1", "legacy-2"]


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "a b a"}, ("a", "b")), ({"scope": ["a", "b"]}, ("a", "b")),
        ({"scp": "a b"}, ("a", "b")), ({"scp": ["a", 1, 'x"y', "c d", "\n"]}, ("a",)),
        ({"scope": 7}, ()), ({"scope": {"a": 1}}, ()), ({}, ()),
    ],
)  # fmt: skip
def test_scopes_are_read_as_issuers_write_them(
    claims: dict[str, Any], scopes: tuple[str, ...]
) -> None:
    assert read_scopes(claims) == scopes
