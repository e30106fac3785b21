"""The examples of applications that embed the gateway do what they say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp
import httpx
from aiohttp import web
from aiohttp.test_utils import TestClient
from support.embedded_config import config
from support.running_gateway import basic
from support.servers.asgi_servers import serve
from support.servers.raw_upstream import RawUpstream

from examples import aiohttp_app, fastapi_app
from gateway.testing import TemporaryGateway

Start = Callable[[web.Application], Awaitable[TestClient[web.Request, web.Application]]]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_aiohttp_application(aiohttp_client: Start, upstream: RawUpstream) -> None:
    gateway = TemporaryGateway(config(scopes=["read", "write"], default_scopes=["read"]))
    aiohttp_app.REPORTS = upstream.url
    client = await aiohttp_client(aiohttp_app.create_app(gateway))
    await gateway.add_client("shop", "secret")
    form = {"grant_type": "client_credentials"}
    async with client.post("/token", data=form, headers=basic("shop", "secret")) as response:
        token = (await response.json())["access_token"]
    async with client.get("/health") as response:
        assert await response.text() == "ok"
    async with client.get("/orders", headers=bearer(token)) as response:
        assert await response.json() == {"orders": ["coffee"], "client": "shop"}
    async with client.post("/orders", headers=bearer(token), data="tea") as response:
        assert response.status == 403
    token = await gateway.issue_token("shop", scopes=["write"])
    async with client.post("/orders", headers=bearer(token), data="tea") as response:
        assert (response.status, await response.json()) == (201, {"item": "tea"})
    async with client.get("/reports/1") as response:
        assert response.status == 401
    async with client.get("/reports/1", headers=bearer(token)) as response:
        assert await response.text() == "ok"
    assert upstream.requests[0].all(b"x-client-id") == [b"shop"]


async def test_fastapi_service() -> None:
    gateway = TemporaryGateway(config(scopes=["read", "write"], default_scopes=["read"]))
    async with (
        serve(fastapi_app.create_app(gateway), "uvicorn") as authority,
        httpx.AsyncClient(base_url=f"http://{authority}") as client,
    ):
        token = await gateway.issue_token("shop")
        shown = await client.get("/orders", headers=bearer(token))
        assert shown.json() == {"orders": ["coffee"], "client": "shop"}
        rejected = await client.post("/orders", params={"item": "tea"}, headers=bearer(token))
        assert rejected.status_code == 403
        token = await gateway.issue_token("shop", scopes=["write"])
        taken = await client.post("/orders", params={"item": "tea"}, headers=bearer(token))
        assert taken.status_code == 201
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://{authority}/news", headers=bearer(token)) as socket,
        ):
            assert await socket.receive_json() == {"orders": 2, "client": "shop"}
