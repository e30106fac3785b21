"""What a client may ask for: grants, scopes, and what its tokens are for (RFC 8707)."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from support.provider import FORM, Provider, Reply, basic

from gateway.oauth.access import Access, CachedToken, constraint_of
from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.errors import BearerError, InsufficientScopeError, InvalidTokenError
from gateway.oauth.models import AccessToken
from gateway.oauth.policy import ProtectedResource

ORDERS, FILES = "http://gateway.test/api/orders", "urn:example:files"


@pytest.fixture(autouse=True)
async def shop(provider: Provider) -> None:
    provider.change(
        resources=(ProtectedResource("/api/orders"),), audiences=(FILES,),
        grant_types=("client_credentials", "refresh_token"),
    )  # fmt: skip
    await provider.server.register_client(client_id="shop", client_secret="secret")


async def request_token(provider: Provider, *parameters: tuple[str, str]) -> Reply:
    body = urlencode([("grant_type", "client_credentials"), *parameters])
    return await provider.fetch("POST", "/token", basic("shop", "secret") | FORM, body)


async def audience_of(provider: Provider, reply: Reply) -> object:
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    return token.claims.get("aud")


async def test_client_uses_only_the_grants_it_is_registered_for(provider: Provider) -> None:
    await provider.server.update_client(
        "shop", metadata=lambda _: ClientMetadata(grant_types=("refresh_token",))
    )
    assert (await request_token(provider)).error == (400, "unauthorized_client")


async def test_scopes_of_a_client_are_changed_without_touching_its_tokens(
    provider: Provider,
) -> None:
    old = (await request_token(provider, ("scope", "orders:write"))).json["access_token"]
    assert await provider.server.update_client("shop", scopes=("orders:read",))
    assert (await request_token(provider, ("scope", "orders:write"))).error == (
        400,
        "invalid_scope",
    )
    assert (await request_token(provider)).status == 200
    assert await provider.server.inspect_token(old) is not None


async def test_token_is_for_the_resources_that_were_asked_for(provider: Provider) -> None:
    assert await audience_of(provider, await request_token(provider)) is None
    reply = await request_token(provider, ("resource", ORDERS))
    assert await audience_of(provider, reply) == [ORDERS]
    reply = await request_token(provider, ("resource", ORDERS), ("resource", FILES))
    assert await audience_of(provider, reply) == [ORDERS, FILES]


@pytest.mark.parametrize(
    "resource",
    [
        ORDERS + "/", ORDERS.replace("http://gateway.test", "HTTP://Gateway.TEST"),
        ORDERS.replace("gateway.test", "gateway.test:80"),
    ],
)  # fmt: skip
async def test_resource_is_known_by_each_url_that_is_equivalent(
    provider: Provider, resource: str
) -> None:
    reply = await request_token(provider, ("resource", resource), ("resource", ORDERS))
    assert await audience_of(provider, reply) == [ORDERS]


@pytest.mark.parametrize("resource", ["http://gateway.test", "http://gateway.test/"])
async def test_gateway_as_a_whole_is_known_with_and_without_a_slash(
    provider: Provider, resource: str
) -> None:
    reply = await request_token(provider, ("resource", resource))
    assert await audience_of(provider, reply) == ["http://gateway.test"]


@pytest.mark.parametrize(
    "resource",
    ["https://elsewhere.example", "http://gateway.test/api", ORDERS + "#x", "orders"],
)
async def test_unknown_resource_is_an_invalid_target(provider: Provider, resource: str) -> None:
    reply = await request_token(provider, ("resource", ORDERS), ("resource", resource))
    assert reply.error == (400, "invalid_target")


async def test_client_with_audiences_gets_tokens_for_them_and_no_others(
    provider: Provider,
) -> None:
    await provider.server.update_client(
        "shop", metadata=lambda _: ClientMetadata(audiences=(FILES,))
    )
    assert await audience_of(provider, await request_token(provider)) == [FILES]
    assert (await request_token(provider, ("resource", ORDERS))).error == (400, "invalid_target")


async def test_other_parameters_must_not_be_repeated(provider: Provider) -> None:
    reply = await request_token(provider, ("scope", "orders:read"), ("scope", "orders:read"))
    assert reply.error == (400, "invalid_request")


def cached(audience: object, client_id: str = "shop", **cnf: str) -> CachedToken:
    claims = {"aud": audience} if audience else {}
    token = AccessToken(b"", client_id, "", ("a",), 0, 1, claims | ({"cnf": cnf} if cnf else {}))
    return CachedToken(token, 1, b"", constraint_of(token, {"http://gateway.test"}))


@pytest.mark.parametrize(
    ("audience", "route_audience", "passes"),
    [
        (None, (), True),
        (None, (FILES,), False),
        ("http://gateway.test", (), True),
        (["http://gateway.test", "x"], (), True),
        (["http://gateway.test"], (FILES,), False),
        (ORDERS, (), True),
        ([ORDERS, FILES], (), True),
        (["http://gateway.test/api/other"], (), False),
        (FILES, (), False),
        (FILES, (FILES,), True),
        (ORDERS, (FILES,), True),
        ("other", (FILES,), False),
    ],
)
def test_token_passes_only_where_it_is_for(
    audience: object, route_audience: tuple[str, ...], passes: bool
) -> None:
    access = Access(audience=frozenset(route_audience), resources=frozenset({ORDERS}))
    if passes:
        access.check(cached(audience))
    else:
        with pytest.raises(InvalidTokenError) as refused:
            access.check(cached(audience))
        assert refused.value.reason == "audience"


def test_plain_token_has_no_restriction_to_look_at() -> None:
    assert cached(None).constraint is None
    assert cached(["http://gateway.test"]).constraint is None


def test_token_of_another_client_is_refused_before_its_scopes_are_looked_at() -> None:
    access = Access(frozenset({"a"}), frozenset({"other"}))
    with pytest.raises(InsufficientScopeError) as refused:
        access.check(cached(None))
    assert refused.value.reason == "client"


@pytest.mark.parametrize("cnf", [{"x5t#S256": "x"}, {"jkt": "x"}, {"jwe": "x"}])
def test_bound_token_without_its_proof_is_refused(cnf: dict[str, str]) -> None:
    with pytest.raises(BearerError):
        Access().check(cached(None, **cnf))
