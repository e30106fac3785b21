"""Token exchange (RFC 8693): a chain of services, each with a token of its own."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from support import settings
from support.jose_values import make_key, make_proof
from support.provider import FORM, Provider, Reply, basic
from support.servers.issuer import issuer

from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.jose import read_jwt, sign_jwt
from gateway.oauth.models import AccessToken
from gateway.oauth.policy import TOKEN_EXCHANGE

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"


@pytest.fixture(autouse=True)
async def services(provider: Provider) -> None:
    provider.change(
        grant_types=("client_credentials", TOKEN_EXCHANGE), audiences=("urn:b", "urn:c")
    )
    await provider.server.register_client(client_id="web", client_secret="secret")
    for name, scopes in (("orders", ("orders:read", "orders:write")), ("stock", ("orders:read",))):
        await provider.server.register_client(
            client_id=name, client_secret="secret", scopes=scopes,
            metadata=ClientMetadata(grant_types=("client_credentials", TOKEN_EXCHANGE)),
        )  # fmt: skip


async def web_token(provider: Provider, scope: str = "orders:read orders:write") -> str:
    return (await provider.issue_token("web", "secret", scope, "x")).access_token


async def exchange(provider: Provider, token: str, client_id: str = "orders", **form: Any) -> Reply:
    parameters = {
        "grant_type": TOKEN_EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN,
    } | form  # fmt: skip
    body = urlencode({k: v for k, v in parameters.items() if v is not None}, doseq=True)
    return await provider.fetch("POST", "/token", basic(client_id, "secret") | FORM, body)


async def inspect(provider: Provider, reply: Reply) -> AccessToken:
    assert reply.status == 200, reply.json
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    return token


async def test_service_gets_a_token_of_its_own_that_speaks_for_the_caller(
    provider: Provider,
) -> None:
    reply = await exchange(provider, await web_token(provider), audience="urn:b")
    token = await inspect(provider, reply)
    assert reply.json["issued_token_type"] == ACCESS_TOKEN
    assert reply.json["token_type"] == "Bearer"
    assert token.client_id == "orders"
    assert token.claims == {"sub": "web", "act": {"sub": "orders"}, "aud": ["urn:b"]}


async def test_chain_names_each_service_newest_first(provider: Provider) -> None:
    first = await exchange(provider, await web_token(provider))
    second = await exchange(provider, first.json["access_token"], "stock")
    token = await inspect(provider, second)
    assert token.claims["sub"] == "web"
    assert token.claims["act"] == {"sub": "stock", "act": {"sub": "orders"}}


async def test_chain_has_an_end(provider: Provider) -> None:
    token = await web_token(provider)
    for _ in range(10):
        reply = await exchange(provider, token)
        assert reply.status == 200
        token = reply.json["access_token"]
    assert (await exchange(provider, token)).error == (400, "invalid_request")


async def test_scopes_are_those_that_both_tokens_and_service_have(provider: Provider) -> None:
    token = await web_token(provider)
    assert (await inspect(provider, await exchange(provider, token))).scopes == (
        "orders:read", "orders:write",
    )  # fmt: skip
    assert (await inspect(provider, await exchange(provider, token, "stock"))).scopes == (
        "orders:read",
    )
    narrow = await exchange(provider, token, scope="orders:read")
    assert (await inspect(provider, narrow)).scopes == ("orders:read",)
    for service, scope, subject in (
        ("stock", "orders:write", "orders:read orders:write"),
        ("orders", "orders:write", "orders:read"),
        ("orders", "nonsense", "orders:read"),
        ("stock", None, "orders:write"),
    ):
        reply = await exchange(provider, await web_token(provider, subject), service, scope=scope)
        assert reply.error == (400, "invalid_scope")


async def register_service(provider: Provider, name: str, **registration: Any) -> None:
    metadata = ClientMetadata(
        grant_types=("client_credentials", TOKEN_EXCHANGE),
        audiences=registration.pop("audiences", ()),
    )
    await provider.server.register_client(
        client_id=name, client_secret="secret", metadata=metadata, **registration
    )


async def test_new_token_is_for_nothing_that_the_old_one_is_not_for(provider: Provider) -> None:
    form = {"grant_type": "client_credentials", "scope": "orders:read", "resource": "urn:b"}
    issued = await provider.fetch("POST", "/token", basic("web", "secret") | FORM, urlencode(form))
    narrow = issued.json["access_token"]
    for audience in (None, "urn:b"):
        token = await inspect(provider, await exchange(provider, narrow, audience=audience))
        assert token.claims["aud"] == ["urn:b"]
    for wide in ("urn:c", ["urn:b", "urn:c"]):
        reply = await exchange(provider, narrow, audience=wide)
        assert reply.error == (400, "invalid_target")
    chained = (await exchange(provider, narrow)).json["access_token"]
    assert (await exchange(provider, chained, "stock", audience="urn:c")).status == 400
    # For the gateway as a whole, the old one is for all of them.
    token = await inspect(provider, await exchange(provider, await web_token(provider)))
    assert "aud" not in token.claims


async def test_service_reaches_what_an_operator_has_registered_it_for(provider: Provider) -> None:
    form = {"grant_type": "client_credentials", "scope": "orders:read", "resource": "urn:b"}
    issued = await provider.fetch("POST", "/token", basic("web", "secret") | FORM, urlencode(form))
    narrow = issued.json["access_token"]
    await register_service(provider, "billing", audiences=("urn:c",))
    for audience in (None, "urn:c"):
        reply = await exchange(provider, narrow, "billing", audience=audience)
        assert (await inspect(provider, reply)).claims["aud"] == ["urn:c"]
    assert (await exchange(provider, narrow, "billing", audience="urn:b")).status == 400
    # What a client says of itself when it registers is no word of an operator.
    await register_service(provider, "own", audiences=("urn:b", "urn:c"), is_trusted=False)
    assert (await exchange(provider, narrow, "own", audience="urn:c")).status == 400
    token = await inspect(provider, await exchange(provider, narrow, "own"))
    assert token.claims["aud"] == ["urn:b"]


async def test_new_token_ends_with_the_old_one(provider: Provider) -> None:
    token = await web_token(provider)
    provider.clock.now += 3000
    reply = await exchange(provider, token)
    assert reply.json["expires_in"] == 600


async def test_jwt_is_issued_where_one_is_asked_for(provider: Provider) -> None:
    reply = await exchange(
        provider, await web_token(provider), requested_token_type=JWT, resource=["urn:b", "urn:c"]
    )
    assert reply.json["issued_token_type"] == JWT
    claims = read_jwt(reply.json["access_token"]).claims
    assert (claims["sub"], claims["client_id"]) == ("web", "orders")
    assert claims["act"] == {"sub": "orders"}
    assert claims["aud"] == ["urn:b", "urn:c"]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"subject_token": None, "subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": "unknown"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"actor_token": "unknown", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"audience": "urn:unknown"}, "invalid_target"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
    ],
)
async def test_exchange_is_refused_with_the_code_of_rfc_8693(
    provider: Provider, form: dict[str, Any], error: str
) -> None:
    reply = await exchange(provider, await web_token(provider), **form)
    assert reply.error == (400, error)


async def test_expired_and_revoked_tokens_are_exchanged_for_nothing(provider: Provider) -> None:
    revoked, expired = await web_token(provider), await web_token(provider)
    await provider.server.revoke_token(revoked)
    assert (await exchange(provider, revoked)).error == (400, "invalid_request")
    provider.clock.now += 3600
    assert (await exchange(provider, expired)).error == (400, "invalid_request")


async def test_actor_token_must_be_the_services_own(provider: Provider) -> None:
    own = (await provider.issue_token("orders", "secret", None, "x")).access_token
    subject = await web_token(provider)
    reply = await exchange(provider, subject, actor_token=own, actor_token_type=ACCESS_TOKEN)
    assert reply.status == 200
    reply = await exchange(provider, subject, actor_token=subject, actor_token_type=ACCESS_TOKEN)
    assert reply.error == (400, "invalid_request")


async def test_only_clients_that_are_registered_for_it_exchange(provider: Provider) -> None:
    reply = await exchange(provider, await web_token(provider), "web")
    assert reply.error == (400, "unauthorized_client")
    provider.change(grant_types=("client_credentials",))
    reply = await exchange(provider, await web_token(provider))
    assert reply.error == (400, "unsupported_grant_type")


async def test_external_token_begins_a_chain_if_it_lets_the_service_act(provider: Provider) -> None:
    key = make_key()
    async with issuer(key) as corp:
        provider.trust(settings.jwt_issuer("corp", "https://corp.example", corp.jwks_uri, "a"))
        now = int(provider.clock.now)
        claims = {
            "iss": "https://corp.example", "aud": "a", "sub": "alice", "scope": "orders:read",
            "exp": now + 60, "iat": now,
        }  # fmt: skip
        subject = sign_jwt({"alg": "ES256", "kid": key.kid}, claims, key)
        reply = await exchange(provider, subject, subject_token_type=JWT)
        token = await inspect(provider, reply)
        assert (token.client_id, token.claims["sub"]) == ("orders", "corp:alice")
        # As a JWT of ours, which others read, and in its introspection.
        reply = await exchange(provider, subject, requested_token_type=JWT)
        assert read_jwt(reply.json["access_token"]).text("sub") == "corp:alice"
        described = await provider.fetch(
            "POST", "/introspect", basic("orders", "secret") | FORM,
            f"token={reply.json['access_token']}",
        )  # fmt: skip
        assert described.json["sub"] == "corp:alice"
        for actor, status in (("orders", 200), ("stock", 400), (["orders"], 400)):
            said = claims | {"may_act": {"sub": actor}}
            subject = sign_jwt({"alg": "ES256", "kid": key.kid}, said, key)
            assert (await exchange(provider, subject)).status == status


async def test_bound_token_is_exchanged_for_a_bound_one_only(provider: Provider) -> None:
    url, now = "http://gateway.test/token", provider.clock.now
    owner, service = make_key(), make_key()
    made = await provider.fetch(
        "POST", "/token",
        basic("web", "secret") | FORM | {"DPoP": make_proof(owner, "POST", url, now)},
        "grant_type=client_credentials",
    )  # fmt: skip
    subject = made.json["access_token"]
    assert (await exchange(provider, subject)).error == (400, "invalid_request")
    form = {
        "grant_type": TOKEN_EXCHANGE, "subject_token": subject, "subject_token_type": ACCESS_TOKEN,
    }  # fmt: skip
    reply = await provider.fetch(
        "POST", "/token",
        basic("orders", "secret") | FORM | {"DPoP": make_proof(service, "POST", url, now)},
        urlencode(form),
    )  # fmt: skip
    assert (reply.status, reply.json["token_type"]) == (200, "DPoP")
