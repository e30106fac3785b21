"""Pages of other origins at the provider's paths, as browsers ask for them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pydantic import ValidationError
from support.clients.browser import WEB, open_door
from support.provider import FORM, JSON, Provider, Reply, basic

from gateway.config.provider import ProviderCorsConfig

APP = "https://app.example"  # of the redirect URI of `web`
ENDPOINTS = ["/token", "/revoke", "/validate", "/register", "/createClient"]
DOCUMENTS = [
    "/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource",
    "/jwks.json",
]  # fmt: skip


async def preflight(
    provider: Provider, path: str, origin: str = APP, fields: str = "content-type, dpop"
) -> Reply:
    headers = {
        "Origin": origin, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": fields,
    }  # fmt: skip
    return await provider.fetch("OPTIONS", path, headers)


def allowed(reply: Reply) -> str | None:
    return reply.headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_page_of_a_registered_redirect_uri_may_call_each_endpoint(
    provider: Provider, path: str
) -> None:
    await open_door(provider)
    reply = await preflight(provider, path)
    assert (reply.status, allowed(reply), reply.reason) == (204, APP, "cors_preflight")
    assert reply.headers["Access-Control-Allow-Headers"] == "content-type, dpop"
    methods = reply.headers["Access-Control-Allow-Methods"].split(", ")
    assert "POST" in methods
    assert "Access-Control-Allow-Credentials" not in reply.headers
    reply = await provider.fetch("POST", path, {"Origin": APP} | FORM, "x=1")
    assert (reply.status >= 400 or path == "/createClient", allowed(reply)) == (True, APP)
    assert reply.headers["Vary"] == "Origin"
    exposed = reply.headers["Access-Control-Expose-Headers"]
    assert "DPoP-Nonce" in exposed
    assert "WWW-Authenticate" in exposed


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://app.example.evil", "http://app.example", "null",
     "https://app.example:8443", "https://app", "", "https://APP.example"],
)  # fmt: skip
async def test_page_of_another_origin_may_read_nothing(provider: Provider, origin: str) -> None:
    await open_door(provider)
    reply = await preflight(provider, "/token", origin)
    assert (reply.status, allowed(reply)) == (403, None)
    headers = basic("web", "secret") | FORM | {"Origin": origin}
    reply = await provider.fetch("POST", "/token", headers, "grant_type=client_credentials")
    assert allowed(reply) is None


async def test_operator_lists_further_origins(provider: Provider) -> None:
    provider.change(cors_origins=("https://one.example", "https://*.two.example"))
    for origin, is_allowed in (
        ("https://one.example", True), ("https://a.two.example", True),
        ("https://a.b.two.example", True), ("https://two.example", False),
        ("https://.two.example", False), ("https://evil-two.example", False),
        ("http://a.two.example", False), (APP, False),
    ):  # fmt: skip
        assert (allowed(await preflight(provider, "/register", origin)) == origin) is is_allowed
    provider.change(cors_origins=("*",))
    assert allowed(await preflight(provider, "/register", "https://any.example"))


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_public_documents_are_for_all_pages(provider: Provider, path: str) -> None:
    reply = await preflight(provider, path, "https://any.example", "mcp-protocol-version")
    assert (reply.status, allowed(reply)) == (204, "*")
    assert reply.headers["Access-Control-Allow-Headers"] == "mcp-protocol-version"
    for method, status in (("GET", 200), ("HEAD", 200), ("POST", 405)):
        reply = await provider.fetch(method, path, {"Origin": "https://any.example"})
        assert (reply.status, allowed(reply)) == (status, "*")


async def test_introspection_is_for_no_page(provider: Provider) -> None:
    await open_door(provider, cors_origins=("*",))
    reply = await preflight(provider, "/introspect")
    assert (reply.status, allowed(reply)) == (403, None)
    reply = await provider.fetch("POST", "/introspect", {"Origin": APP} | FORM, "token=x")
    assert allowed(reply) is None


async def test_page_that_may_register_its_own_address_may_call_register_before(
    provider: Provider,
) -> None:
    await open_door(provider, registration_mode="public", redirect_hosts=("inspector.example",))
    for origin, is_allowed in (
        ("http://localhost:6274", True), ("https://inspector.example", True),
        ("http://inspector.example", False), ("https://evil.example", False), ("null", False),
    ):  # fmt: skip
        assert (allowed(await preflight(provider, "/register", origin)) == origin) is is_allowed
        assert allowed(await preflight(provider, "/token", origin)) is None, "not registered yet"
    headers = {"Origin": "http://localhost:6274"} | JSON
    body = json.dumps({"redirect_uris": ["http://localhost:6274/oauth/callback"]})
    reply = await provider.fetch("POST", "/register", headers, body)
    assert (reply.status, allowed(reply)) == (201, "http://localhost:6274")
    provider.use(provider.policy)
    assert allowed(await preflight(provider, "/token", "http://localhost:6274"))
    provider.change(registration_mode="open")
    assert allowed(await preflight(provider, "/register", "http://localhost:1")) is None


def test_origins_of_registered_clients_can_be_asked_for_by_name() -> None:
    section = ProviderCorsConfig.model_validate({"origins": "registered"})
    assert section == ProviderCorsConfig()
    with pytest.raises(ValidationError):
        ProviderCorsConfig.model_validate({"origins": "register"})


async def test_origins_go_with_what_is_registered(provider: Provider) -> None:
    await open_door(provider, metadata=replace(WEB, token_endpoint_auth_method="none"))

    async def is_allowed(origin: str) -> bool:
        provider.use(provider.policy)  # what is known is kept for some seconds
        return allowed(await preflight(provider, "/token", origin)) == origin

    assert await is_allowed(APP)
    other = "http://localhost:3000"
    await provider.server.update_client(
        "web", metadata=lambda old: replace(old, redirect_uris=(f"{other}/cb", "com.app.x:/cb"))
    )
    assert (await is_allowed(APP), await is_allowed(other)) == (False, True)
    await provider.server.store.clients.delete_client("web")
    assert not await is_allowed(other)
    provider.change(registration_mode="open")
    reply = await provider.fetch(
        "POST", "/register", JSON, json.dumps({"redirect_uris": ["https://new.example:443/cb"]})
    )
    assert reply.status == 201
    assert await is_allowed("https://new.example")
    provider.clock.now += 31 * 86400
    assert not await is_allowed("https://new.example"), "it has expired"


async def test_pages_for_users_are_read_by_no_other_page(provider: Provider) -> None:
    await open_door(provider)
    reply = await preflight(provider, "/authorize")
    assert (reply.status, allowed(reply)) == (405, None)
    reply = await provider.fetch("GET", "/authorize", {"Origin": APP})
    assert allowed(reply) is None


async def test_options_that_is_no_preflight_is_405(provider: Provider) -> None:
    reply = await provider.fetch("OPTIONS", "/token", {"Origin": APP})
    assert reply.status == 405


@pytest.mark.parametrize("fields", ["", "a\r\nb", "x" * 2000, "a;b"])
async def test_field_names_that_are_none_are_not_echoed(provider: Provider, fields: str) -> None:
    reply = await preflight(provider, "/jwks.json", fields=fields)
    assert reply.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, DPoP"
