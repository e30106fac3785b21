"""`gateway.aiohttp`: the provider's endpoints in an aiohttp application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient
from support.deadlines import until
from support.embedded_config import ISSUER, config
from support.processes.redis import RedisServer
from support.running_gateway import REGISTRATION_TOKEN, StartGateway, basic

from gateway.aiohttp import (
    EmbeddedGateway,
    bearer_middleware,
    cleanup_ctx,
    discovery_routes,
    identity,
    provider_app,
    provider_routes,
)
from gateway.config import ConfigError
from gateway.testing import TemporaryGateway

Client = TestClient[web.Request, web.Application]
Start = Callable[[web.Application], Awaitable[Client]]
GRANT = {"grant_type": "client_credentials"}


async def issue(client: Client, path: str = "/token", **form: str) -> dict[str, Any]:
    async with client.post(path, data=GRANT | form, headers=basic("shop", "secret")) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Cache-Control"] == "no-store"
        issued: dict[str, Any] = await response.json()
        return issued


async def register(client: Client, path: str = "/createClient") -> None:
    async with client.post(
        path,
        json={"client_id": "shop", "client_secret": "secret"},
        headers={"Authorization": f"Bearer {REGISTRATION_TOKEN}"},
    ) as response:
        assert response.status == 201, await response.text()


async def test_life_of_a_token_through_the_endpoints(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    client = await aiohttp_client(provider_app(embedded))
    await register(client)
    token = (await issue(client, scope="orders:write"))["access_token"]
    shown = {"Authorization": f"Bearer {token}"}
    async with client.get("/validate", headers=shown) as response:
        assert (await response.json())["scope"] == "orders:write"
    for active in (True, False):
        async with client.post(
            "/introspect", data={"token": token}, headers=basic("shop", "secret")
        ) as response:
            assert (await response.json())["active"] is active
        async with client.post(
            "/revoke", data={"token": token}, headers=basic("shop", "secret")
        ) as response:
            assert response.status == 200
    async with client.post("/register", json={"client_name": "x"}) as response:
        assert response.status == 401
    async with client.get("/token") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    async with client.post("/token/") as response:
        assert response.status == 404


async def test_body_that_is_too_large_or_malformed_is_rejected(
    embedded: TemporaryGateway, aiohttp_client: Start
) -> None:
    client = await aiohttp_client(provider_app(embedded))
    data = FormData({"grant_type": "x" * 70_000})
    async with client.post("/token", data=data) as response:
        assert response.status == 413
        assert (await response.json())["error"] == "invalid_request"
    async with client.post("/token", headers={"Host": "a,b"}) as response:
        assert response.status == 400


async def test_body_that_takes_too_long_is_rejected(aiohttp_client: Start) -> None:
    values = config() | {"listen": {"timeouts": {"body": "50ms"}}}
    client = await aiohttp_client(provider_app(TemporaryGateway(values)))
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"408"
    writer.close()
    await writer.wait_closed()


async def test_mounted_provider_says_where_it_is(aiohttp_client: Start) -> None:
    gateway = TemporaryGateway(config(), mount="/oauth")
    app = web.Application()
    app.add_subapp("/oauth", provider_app(gateway))
    app.add_routes(discovery_routes(gateway))
    client = await aiohttp_client(app)
    await register(client, "/oauth/createClient")
    await issue(client, "/oauth/token")
    for path in ("", "/oauth"):  # where RFC 8414 has it, and where others look
        async with client.get(f"{path}/.well-known/oauth-authorization-server") as response:
            found = await response.json()
    assert found["token_endpoint"] == f"{ISSUER}/oauth/token"
    assert found["jwks_uri"] == f"{ISSUER}/jwks.json"
    for path in ("/jwks.json", "/.well-known/oauth-protected-resource"):
        async with client.get(path) as response:
            assert response.status == 200
    async with client.post("/token") as response:
        assert response.status == 404


async def test_pages_of_users_are_served(aiohttp_client: Start) -> None:
    gateway = TemporaryGateway(
        config(grant_types=["client_credentials", "authorization_code"]), mount="/oauth"
    )
    app = web.Application()
    app.add_subapp("/oauth", provider_app(gateway))
    client = await aiohttp_client(app)
    async with client.get("/oauth/authorize") as response:
        assert response.status == 400  # a page says that client_id is missing
        assert response.content_type == "text/html"
    async with client.get("/oauth/authorize/sign-out") as response:
        assert response.status == 200
    async with client.get("/oauth/authorize/other") as response:
        assert response.status == 404


async def test_same_file_and_store_as_a_gateway(
    start: StartGateway, aiohttp_client: Start, tmp_path: Path
) -> None:
    """A token of the one is good at the other, and so is its revocation, within a second."""
    gateway = await start("http://127.0.0.1:9")
    token = await gateway.token("shop")
    text = {
        "store": f"sqlite:///{tmp_path}/gateway.db",
        "provider": {"registration": {"mode": "off"}},
    }
    file = tmp_path / "embedded.yaml"
    file.write_text(yaml.safe_dump(text))
    embedded = EmbeddedGateway(file)
    app = web.Application(middlewares=[bearer_middleware(embedded)])
    app.cleanup_ctx.append(cleanup_ctx(embedded))

    async def show(request: web.Request) -> web.Response:
        return web.Response(text=identity(request).client_id)

    app.router.add_get("/", show)
    client = await aiohttp_client(app)

    async def status() -> int:
        async with client.get("/", headers={"Authorization": f"Bearer {token}"}) as response:
            return response.status

    assert await status() == 200
    lag = embedded.metrics.registry.get_sample_value
    async with gateway.session.post(
        gateway.url("/revoke"), data={"token": token}, headers=basic("shop", "secret")
    ) as response:
        assert response.status == 200
    await until(lambda: lag("gateway_cache_invalidation_lag_seconds_count"))
    assert await status() == 401
    # Read at most a second later, by the store's own clock.
    assert lag("gateway_cache_invalidation_lag_seconds_bucket", {"le": "1.0"}) == 1


async def test_revocation_of_another_process_arrives_through_redis(
    redis_server: RedisServer, aiohttp_client: Start
) -> None:
    values = config() | {"store": redis_server.url}
    one, other = EmbeddedGateway(values), EmbeddedGateway(values)
    issuing = await aiohttp_client(provider_app(one))
    await register(issuing)
    token = (await issue(issuing))["access_token"]
    client = await aiohttp_client(provider_app(other))
    shown = {"Authorization": f"Bearer {token}"}

    async def status() -> int:
        async with client.get("/validate", headers=shown) as response:
            return response.status

    assert await status() == 200
    async with issuing.post(
        "/revoke", data={"token": token}, headers=basic("shop", "secret")
    ) as response:
        assert response.status == 200

    async def is_rejected() -> bool:
        return await status() == 401

    await until(is_rejected)
    redis_server.stop()
    shown = {"Authorization": "Bearer another"}
    assert await status() == 503


async def test_values_in_code_are_taken_as_they_are() -> None:
    values = {"store": "sqlite:///a${HOME}b.db", "provider": {"registration": {"mode": "off"}}}
    assert EmbeddedGateway(values).config.store == "sqlite:///a${HOME}b.db"
    parsed = EmbeddedGateway(values).config
    assert EmbeddedGateway(parsed).config is parsed


def test_errors_of_a_configuration_name_their_key() -> None:
    with pytest.raises(ConfigError, match=r"provider\.scope"):
        EmbeddedGateway({"provider": {"scope": []}})
    with pytest.raises(ValueError, match="expected a path such as /oauth"):
        EmbeddedGateway(config(), mount="oauth/")


async def test_start_that_fails_closes_what_it_opened(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").mkdir()
    gateway = EmbeddedGateway(config() | {"store": f"sqlite:///{tmp_path}/gateway.db"})
    app = web.Application()
    app.cleanup_ctx.append(cleanup_ctx(gateway))
    app.add_routes(provider_routes(gateway))
    runner = web.AppRunner(app)
    before = asyncio.all_tasks()
    with pytest.raises(Exception, match=r"gateway\.db"):
        await runner.setup()
    await runner.cleanup()
    assert asyncio.all_tasks() == before


async def test_stop_leaves_no_task_and_no_file(tmp_path: Path) -> None:
    gateway = EmbeddedGateway(config() | {"store": f"sqlite:///{tmp_path}/gateway.db"})
    before = asyncio.all_tasks()
    for _ in range(2):
        async with gateway:
            assert asyncio.all_tasks() != before
        await until(lambda: asyncio.all_tasks() == before)
    assert {path.name for path in tmp_path.iterdir()} == {"gateway.db"}
