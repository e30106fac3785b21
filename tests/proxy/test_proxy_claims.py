"""Rules of routes on scopes and claims, and header fields that are filled with claims."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.jose_values import make_key
from support.protocols import both_protocols, only_http1
from support.running_gateway import RunningGateway, StartGateway
from support.servers.issuer import Issuer, issuer
from support.servers.raw_upstream import RawUpstream

from gateway.oauth.jose import sign_jwt

pytestmark = both_protocols

KEY = make_key()
API = "https://api.example"
ROLES = "https://app.example/roles"


def route(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "match": {"path": f"/{name}"}, "upstream": "main"} | keys


FILLED = {
    "X-Tenant": "{claim:tenant}", "X-Roles": "r={claim:realm_access.roles}",
    "X-App-Roles": f"{{claim:{ROLES}}}", "X-Who": "{client_id} {claim:client_id}",
}  # fmt: skip
SECTIONS: dict[str, Any] = {
    "provider": {"scopes": ["a", "b", "c"], "default_scopes": ["a", "b"]},
    "routes": [
        route("any", scopes={"any": ["b", "c"], "all": ["a"]}),
        route("tenant", claims={"tenant": ["a", "b"]}),
        route(
            "groups",
            claims={"groups": {"any": ["x", "y"], "all": ["z"]}, "realm_access.roles": "clerk"},
        ),
        route("values", claims={"level": [3], "verified": True}),
        route("us", claims={"iss": "http://gateway.test"}),
        route("me", claims={"client_id": ["shop", "idp:shop"], "sub": ["shop", "idp:alice"]}),
        route("filled", auth="optional", request_headers={"set": FILLED}),
        route("open", auth="none"),
        route("literal", auth="none", request_headers={"add": {"X-Tenant": "none"}}),
    ],
}


def make_jwt(running: Issuer, **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": running.url, "aud": API, "sub": "alice", "client_id": "shop", "exp": now + 600}
    return sign_jwt({"alg": "ES256", "kid": KEY.kid}, said | claims, KEY)


@asynccontextmanager
async def protected(
    start: StartGateway, upstream: RawUpstream
) -> AsyncIterator[tuple[RunningGateway, Issuer]]:
    async with issuer(KEY) as running:
        sections = SECTIONS | {
            "jwt_issuers": [{"name": "idp", "issuer": running.url, "audience": [API]}],
            "introspection_servers": [
                {"name": "legacy", "endpoint": running.endpoint, "client_id": "g",
                 "client_secret": "s", "token_prefix": "old-"},
            ],
        }  # fmt: skip
        yield await start(upstream.url, **sections), running


async def ask(gateway: RunningGateway, path: str, token: str) -> tuple[int, str, str]:
    """The status, the reason, and the challenge."""
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        problem = {} if response.status == 200 else await response.json(content_type=None)
        challenge = response.headers.get("WWW-Authenticate", "")
        return response.status, problem.get("reason", ""), challenge


async def test_one_of_several_scopes_is_enough(start: StartGateway, upstream: RawUpstream) -> None:
    async with protected(start, upstream) as (gateway, running):
        for scope, status in (("a b", 200), ("a c", 200), ("a", 403), ("b c", 403), ("", 403)):
            token = make_jwt(running, scope=scope)
            for _ in range(2):  # the second one from the cache
                assert (await ask(gateway, "/any", token))[0] == status
        assert 'scope="a b"' in (await ask(gateway, "/any", "unknown"))[2]
        status, reason, challenge = await ask(gateway, "/any", make_jwt(running, scope="a"))
        assert (status, reason) == (403, "scope")
        assert 'error="insufficient_scope"' in challenge
        assert 'error_description="The token needs one of the scopes b, c."' in challenge
        assert 'scope="a b"' in challenge
        url = gateway.url("/.well-known/oauth-protected-resource/any")
        async with gateway.session.get(url) as response:
            assert (await response.json())["scopes_supported"] == ["a", "b", "c"]


ROLE = {"realm_access": {"roles": ["clerk"]}}


@pytest.mark.parametrize(
    ("path", "claims", "failing"),
    [
        ("/tenant", {"tenant": "a"}, ""), ("/tenant", {"tenant": ["c", "b"]}, ""),
        ("/tenant", {"tenant": "c"}, "tenant"), ("/tenant", {}, "tenant"),
        ("/tenant", {"tenant": "A"}, "tenant"), ("/tenant", {"tenant": {"a": "a"}}, "tenant"),
        ("/tenant", {"tenant": [["a"]]}, "tenant"), ("/tenant", {"tenant": "a b"}, "tenant"),
        ("/groups", {"groups": ["x", "z"]} | ROLE, ""),
        ("/groups", {"groups": ["z"]} | ROLE, "groups"),
        ("/groups", {"groups": ["x"]} | ROLE, "groups"),
        ("/groups", {"groups": ["y", "z"]}, "realm_access.roles"),
        ("/groups", {"groups": ["y", "z"], "realm_access.roles": "clerk"}, "realm_access.roles"),
        ("/values", {"level": 3, "verified": True}, ""),
        ("/values", {"level": "3", "verified": "true"}, ""),
        ("/values", {"level": 3.5, "verified": True}, "level"),
        ("/values", {"level": 3, "verified": 1}, "verified"),
        ("/us", {}, "iss"),
        ("/me", {}, ""), ("/me", {"client_id": "spa"}, "client_id"), ("/me", {"sub": "bob"}, "sub"),
        ("/me", {"sub": "shop"}, "sub"),
    ],
)  # fmt: skip
async def test_claims_are_checked_on_every_hit_and_the_response_names_the_one_that_fails(
    start: StartGateway, upstream: RawUpstream, path: str, claims: dict[str, Any], failing: str
) -> None:
    async with protected(start, upstream) as (gateway, running):
        token = make_jwt(running, **claims)
        assert (await ask(gateway, "/open", token))[0] == 200
        for _ in range(2):
            status, reason, challenge = await ask(gateway, path, token)
            if not failing:
                assert status == 200
                continue
            assert (status, reason) == (403, "claim")
            assert 'error="insufficient_scope"' in challenge
            assert f'"The claim {failing} of the token does not permit this."' in challenge
            assert "scope=" not in challenge, "none would help"
        decisions = await gateway.metric("gateway_auth_decisions_total", result="claim")
        assert decisions == (2 if failing else 0)


async def test_own_and_introspected_tokens_have_claims_too(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with protected(start, upstream) as (gateway, running):
        own = await gateway.token("shop")
        other = await gateway.token("spa")
        assert (await ask(gateway, "/me", own))[0] == 200
        assert (await ask(gateway, "/me", other))[1] == "claim"
        assert (await ask(gateway, "/us", own))[0] == 200
        assert (await ask(gateway, "/tenant", own))[1] == "claim"
        active = {"active": True, "client_id": "erp", "sub": "alice"}
        running.tokens["old-1"] = active | {"tenant": "a", "groups": ["x"]}
        running.tokens["old-2"] = active | {"tenant": "c"}
        assert (await ask(gateway, "/tenant", "old-1"))[0] == 200
        assert (await ask(gateway, "/tenant", "old-2"))[1] == "claim"
        assert (await ask(gateway, "/us", "old-1"))[1] == "claim", "it does not name its issuer"


def sent(upstream: RawUpstream) -> dict[str, list[str]]:
    """The fields of the last request in question, under any name that could pass for theirs."""
    found: dict[str, list[str]] = {}
    for name, value in upstream.requests[-1].headers:
        look = "".join(c if c.isalnum() else "-" for c in name.decode().lower())
        if look in {"x-tenant", "x-roles", "x-app-roles", "x-who"}:
            found.setdefault(look, []).append(value.decode())
    return found


async def test_claims_are_sent_in_header_fields(start: StartGateway, upstream: RawUpstream) -> None:
    async with protected(start, upstream) as (gateway, running):
        claims = {
            "tenant": "Åsa & Co, \r\nX-Evil: 1 100%", ROLES: ["a,b", "c", 7, True, None],
            "realm_access": {"roles": ["x y", " z"]},
        }  # fmt: skip
        for _ in range(2):
            assert (await ask(gateway, "/filled", make_jwt(running, **claims)))[0] == 200
            assert sent(upstream) == {
                "x-tenant": ["%C3%85sa & Co%2C %0D%0AX-Evil: 1 100%25"],
                "x-app-roles": ["a%2Cb,c,7,true"],
                "x-roles": ["r=x y,%20z"],
                "x-who": ["idp:shop idp:shop"],
            }
        # Without the claim there is no field, not one with half a value.
        assert (await ask(gateway, "/filled", make_jwt(running, tenant={"a": 1})))[0] == 200
        assert sent(upstream) == {"x-who": ["idp:shop idp:shop"]}
        assert (await ask(gateway, "/filled", make_jwt(running, tenant="x" * 8193)))[0] == 200
        assert "x-tenant" not in sent(upstream)
        assert (await ask(gateway, "/filled", await gateway.token("shop")))[0] == 200
        assert sent(upstream) == {"x-who": ["shop shop"]}


SPELLINGS = (
    "X-Tenant", "x-tenant", "X-TENANT", "X_Tenant", "x_tenant", "X.Tenant", "x-Tenant", "X-Roles",
    "X_ROLES", "x-app_roles", "X_Who", "X~Tenant",
)  # fmt: skip


@pytest.mark.parametrize("path", ["/filled", "/open", "/literal"])
async def test_client_can_set_no_field_that_is_filled_with_claims_on_any_route(
    start: StartGateway, upstream: RawUpstream, path: str
) -> None:
    """Nor by Connection, which would have it removed, nor by trailers."""
    async with protected(start, upstream) as (gateway, running):
        token = make_jwt(running, tenant="a")
        headers = [("Authorization", f"Bearer {token}"), *((name, "evil") for name in SPELLINGS)]
        async with gateway.session.get(gateway.url(path), headers=headers) as response:
            assert response.status == 200
        expected = {
            "/filled": {"x-tenant": ["a"], "x-who": ["idp:shop idp:shop"]}, "/open": {},
            "/literal": {"x-tenant": ["none"]},
        }[path]  # fmt: skip
        assert sent(upstream) == expected


@only_http1
async def test_neither_connection_nor_trailers_touch_a_field_that_is_filled_with_claims(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with protected(start, upstream) as (gateway, running):
        token = make_jwt(running, tenant="a")
        client = await gateway.connect()
        await client.send(
            b"POST /filled HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n"
            b"Connection: keep-alive, X-Tenant, X_Tenant\r\nX-Tenant: evil\r\nTE: trailers\r\n"
            b"Transfer-Encoding: chunked\r\nTrailer: X-Tenant\r\n\r\n"
            b"1\r\nx\r\n0\r\nX-Tenant: evil\r\nx_tenant: evil\r\n\r\n" % token.encode()
        )
        assert (await client.read_response()).status == 200
        assert sent(upstream) == {"x-tenant": ["a"], "x-who": ["idp:shop idp:shop"]}
        assert b"tenant" not in upstream.requests[-1].trailers.lower()
