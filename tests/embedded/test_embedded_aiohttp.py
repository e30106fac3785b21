"""`gateway.aiohttp`: the bearer check in front of the handlers of an aiohttp application."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from support.embedded_config import ISSUER, config
from support.jose_values import make_certificate, make_key, make_proof

from gateway.aiohttp import (
    EmbeddedGateway,
    bearer_middleware,
    cleanup_ctx,
    find_identity,
    identity,
    provider_app,
    provider_routes,
    public,
    require_scopes,
)
from gateway.oauth.models import StoreUnavailableError
from gateway.testing import TemporaryGateway

Start = Callable[[web.Application], Awaitable[TestClient[web.Request, web.Application]]]


async def show(request: web.Request) -> web.Response:
    caller = find_identity(request)
    return web.json_response(None if caller is None else caller.client_id)


@require_scopes("orders:write")
async def write(request: web.Request) -> web.Response:
    return web.json_response(identity(request).client_id)


@public
async def health(request: web.Request) -> web.Response:
    return web.json_response("well")


class Orders(web.View):
    """Read by all, written by few."""

    async def get(self) -> web.Response:
        return web.json_response("read")

    @require_scopes("orders:write")
    async def post(self) -> web.Response:
        return web.json_response("written")


@require_scopes("orders:write")
class Admin(web.View):
    """For few."""

    async def get(self) -> web.Response:
        return web.json_response("admin")


def make_app(gateway: EmbeddedGateway, **requirements: Any) -> web.Application:
    app = web.Application(middlewares=[bearer_middleware(gateway, **requirements)])
    app.cleanup_ctx.append(cleanup_ctx(gateway))
    app.add_routes(provider_routes(gateway))
    app.router.add_get("/", show)
    app.router.add_get("/write", write)
    app.router.add_get("/health", health)
    app.router.add_view("/orders", Orders)
    app.router.add_view("/admin", Admin)
    return app


@pytest.fixture
async def client(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> TestClient[web.Request, web.Application]:
    """A client of an application with all of these handlers."""
    return await aiohttp_client(make_app(embedded))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def outcome(
    client: TestClient[web.Request, web.Application], method: str, path: str, token: str
) -> tuple[int, str]:
    """Status, and `reason` where there is one."""
    async with client.request(method, path, headers=bearer(token)) as response:
        body = await response.json(content_type=None)
        return response.status, body["reason"] if isinstance(body, dict) else str(body)


async def test_challenge_is_that_of_the_routes_of_a_gateway(
    client: TestClient[web.Request, web.Application],
) -> None:
    async with client.get("/") as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == (
            f'Bearer realm="gateway", '
            f'resource_metadata="{ISSUER}/.well-known/oauth-protected-resource"'
        )
        assert response.content_type == "application/problem+json"
        assert (await response.json())["reason"] == "missing"
    async with client.get("/", headers={"Authorization": "Bearer a b"}) as response:
        assert response.status == 400
        assert 'error="invalid_request"' in response.headers["WWW-Authenticate"]


async def test_identity_says_what_the_token_says(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    app = make_app(embedded)

    async def describe(request: web.Request) -> web.Response:
        caller = identity(request)
        with pytest.raises(FrozenInstanceError):
            caller.client_id = "other"  # type: ignore[misc]
        with pytest.raises(TypeError):
            caller.claims["sub"] = "other"  # type: ignore[index]
        assert "ann" not in repr(caller.claims) or "claims" not in repr(caller)
        return web.json_response(
            [caller.client_id, caller.client_name, sorted(caller.scopes), sorted(caller.audience),
             caller.subject, caller.claims["tier"], caller.claims["exp"] > caller.claims["iat"]]
        )  # fmt: skip

    app.router.add_get("/describe", describe)
    client = await aiohttp_client(app)
    token = await embedded.issue_token(
        "shop", scopes=["b", "a"], subject="ann", audience=[ISSUER], claims={"tier": "gold"}
    )
    async with client.get("/describe", headers=bearer(token)) as response:
        assert await response.json() == ["shop", "shop", ["a", "b"], [ISSUER], "ann", "gold", True]


async def test_scopes_are_required_of_handlers_views_and_methods(
    embedded: TemporaryGateway, client: TestClient[web.Request, web.Application]
) -> None:
    reader = await embedded.issue_token(scopes=["orders:read"])
    writer = await embedded.issue_token(scopes=["orders:read", "orders:write"])
    for method, path in (("GET", "/write"), ("POST", "/orders"), ("GET", "/admin")):
        assert await outcome(client, method, path, reader) == (403, "scope"), path
        assert (await outcome(client, method, path, writer))[0] == 200, path
    assert await outcome(client, "GET", "/orders", reader) == (200, "read")
    async with client.get("/write", headers=bearer(reader)) as response:
        assert 'scope="orders:write"' in response.headers["WWW-Authenticate"]


async def test_each_request_is_one_decision(
    embedded: TemporaryGateway, client: TestClient[web.Request, web.Application]
) -> None:
    reader = await embedded.issue_token(scopes=["orders:read"])
    decisions = embedded.metrics.data_plane.auth_decisions
    before = dict(decisions)
    await outcome(client, "GET", "/write", reader)
    await outcome(client, "GET", "/orders", reader)
    counted = {name: count - before[name] for name, count in decisions.items()}
    assert {name: count for name, count in counted.items() if count} == {"scope": 1, "ok": 1}


async def test_public_handlers_and_the_provider_need_no_token(
    client: TestClient[web.Request, web.Application],
) -> None:
    for path in ("/health", "/.well-known/oauth-authorization-server", "/jwks.json"):
        async with client.get(path) as response:
            assert response.status == 200, path


async def test_handler_that_the_middleware_does_not_see_fails_closed(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    app = web.Application()
    app.router.add_get("/write", write)
    client = await aiohttp_client(app)
    async with client.get("/write") as response:
        assert response.status == 500


async def test_scopes_hold_behind_a_decorator_that_hides_them(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    async def hidden(request: web.Request) -> web.StreamResponse:
        return await write(request)

    app = make_app(embedded, optional=True)
    app.router.add_get("/hidden", hidden)
    client = await aiohttp_client(app)
    token = await embedded.issue_token(scopes=["orders:read"])
    assert await outcome(client, "GET", "/hidden", token) == (403, "scope")
    async with client.get("/hidden") as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer realm=")


async def test_optional_token_is_none_or_a_valid_one(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    client = await aiohttp_client(make_app(embedded, optional=True))
    async with client.get("/") as response:
        assert await response.json() is None
    assert await outcome(client, "GET", "/", await embedded.issue_token("shop")) == (200, "shop")
    assert await outcome(client, "GET", "/", "unknown") == (401, "unknown")
    async with client.get("/write") as response:
        assert response.status == 401


async def test_requirements_are_those_of_a_route(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    resource = "https://orders.test/v1"
    client = await aiohttp_client(
        make_app(embedded, scopes="orders:read", clients=["shop"], audience=["a"],
                 resource=resource)
    )  # fmt: skip
    read = ["orders:read"]
    cases = [
        (await embedded.issue_token("shop", scopes=read, audience=["a"]), (200, "shop")),
        (await embedded.issue_token("shop", scopes=read, audience=[resource]), (200, "shop")),
        (await embedded.issue_token("shop", scopes=read, audience=["b"]), (401, "audience")),
        (await embedded.issue_token("shop", audience=["a"]), (403, "scope")),
        (await embedded.issue_token("mill", scopes=read, audience=["a"]), (403, "client")),
        (await embedded.issue_token("shop", expires_in_s=-1), (401, "expired")),
    ]
    for token, expected in cases:
        assert await outcome(client, "GET", "/", token) == expected


async def test_token_of_another_resource_is_rejected_by_default(
    embedded: TemporaryGateway, client: TestClient[web.Request, web.Application]
) -> None:
    token = await embedded.issue_token("shop", audience=["https://elsewhere.test"])
    assert await outcome(client, "GET", "/", token) == (401, "audience")
    assert await outcome(
        client, "GET", "/", await embedded.issue_token("shop", audience=[ISSUER])
    ) == (200, "shop")


async def test_bound_token_needs_the_proof_of_its_key(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    resource = "https://orders.test"
    client = await aiohttp_client(make_app(embedded, resource=resource))
    key = make_key()
    token = await embedded.issue_token("shop", claims={"cnf": {"jkt": key.thumbprint()}})
    proof = make_proof(key, "GET", f"{resource}/", time.time(), token=token)
    assert await outcome(client, "GET", "/", token) == (401, "proof")
    headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
    async with client.get("/", headers=headers) as response:
        assert response.status == 200
    async with client.get("/", headers=headers) as response:  # it is good once
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith('DPoP realm="gateway"')


async def test_bound_token_needs_its_certificate(
    embedded: TemporaryGateway, tmp_path: Path
) -> None:
    server, client = (make_certificate(tmp_path, name) for name in ("server", "client"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    context.load_verify_locations(client.cert)
    context.verify_mode = ssl.CERT_OPTIONAL
    app = TestServer(make_app(embedded), scheme="https")
    async with _over_tls(app, context) as session:
        token = await embedded.issue_token("shop", claims={"cnf": {"x5t#S256": client.thumbprint}})
        for shown, status in ((client, 200), (server, 401)):
            trusting = ssl.create_default_context(cafile=str(server.cert))
            if shown is client:
                trusting.load_cert_chain(client.cert, client.key)
            async with session.get(app.make_url("/"), headers=bearer(token), ssl=trusting) as got:
                assert got.status == status


@asynccontextmanager
async def _over_tls(server: TestServer, context: ssl.SSLContext) -> AsyncIterator[ClientSession]:
    await server.start_server(ssl=context)
    try:
        async with ClientSession() as session:
            yield session
    finally:
        await server.close()


async def test_unknown_is_503_and_never_a_pass(
    embedded: TemporaryGateway, client: TestClient[web.Request, web.Application]
) -> None:
    token = await embedded.issue_token("shop")
    store = embedded.provider.reads
    with patch.object(store, "get_token", side_effect=StoreUnavailableError("down")):
        async with client.get("/", headers=bearer(token)) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            assert (await response.json())["reason"] == "store_unavailable"
    assert await outcome(client, "GET", "/", token) == (200, "shop")
    with patch.object(store, "get_token", side_effect=StoreUnavailableError("down")):
        assert await outcome(client, "GET", "/", token) == (200, "shop")  # it is cached


async def test_encoded_slash_in_a_path_is_the_applications_affair(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    app = make_app(embedded)

    async def name(request: web.Request) -> web.Response:
        return web.json_response(request.match_info["name"])

    app.router.add_get("/files/{name}", name)
    client = await aiohttp_client(app)
    assert await outcome(client, "GET", "/files/a%2Fb", await embedded.issue_token()) == (
        200,
        "a/b",
    )


async def test_several_applications_in_one_process_know_nothing_of_each_other() -> None:
    registry, gateways = CollectorRegistry(), [TemporaryGateway(config()) for _ in range(2)]
    first, second = (TestClient(TestServer(make_app(one))) for one in gateways)
    async with first, second:
        token = await gateways[0].issue_token("shop")
        assert await outcome(first, "GET", "/", token) == (200, "shop")
        assert await outcome(second, "GET", "/", token) == (401, "unknown")
        assert gateways[1].metrics.data_plane.auth_decisions["ok"] == 0
    assert list(registry.collect()) == []


async def test_metrics_are_in_the_registry_of_the_application() -> None:
    registry = CollectorRegistry(auto_describe=True)
    gateway = TemporaryGateway(config(), registry=registry)
    async with TestClient(TestServer(make_app(gateway))) as client:
        await outcome(client, "GET", "/", await gateway.issue_token())
        assert registry.get_sample_value("gateway_auth_decisions_total", {"result": "ok"}) == 1
        names = {family.name for family in registry.collect()}
        assert all(name.startswith("gateway_") for name in names)
    assert list(registry.collect()) == []


async def test_parts_of_an_application_start_the_same_gateway_once(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    app = web.Application(middlewares=[bearer_middleware(embedded)])
    app.cleanup_ctx.append(cleanup_ctx(embedded))
    app.add_subapp("/auth", provider_app(embedded))
    app.router.add_get("/", show)
    client = await aiohttp_client(app)
    assert await outcome(client, "GET", "/", await embedded.issue_token("shop")) == (200, "shop")
    await client.close()
    with pytest.raises(RuntimeError, match="not started"):
        _ = embedded.provider


def test_decorator_of_what_is_no_handler_is_rejected() -> None:
    with pytest.raises(TypeError, match="no coroutine function"):
        require_scopes("a")(lambda request: web.Response())


def test_unknown_requirement_is_rejected(embedded: TemporaryGateway) -> None:
    with pytest.raises(TypeError, match="scope"):
        bearer_middleware(embedded, scope="a")  # type: ignore[call-arg]
