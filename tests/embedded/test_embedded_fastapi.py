"""`gateway.asgi.fastapi`: the bearer check as a dependency, in the OpenAPI document, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from unittest.mock import patch

import aiohttp
import httpx
import pytest
from fastapi import FastAPI, Request, Security, WebSocket
from support.embedded_config import ISSUER, config
from support.servers.asgi_servers import SERVERS, serve

from gateway.asgi import Identity, identity, lifespan
from gateway.asgi.fastapi import BearerSecurity
from gateway.oauth.models import StoreUnavailableError
from gateway.testing import TemporaryGateway

GATEWAY = TemporaryGateway(config())
bearer = BearerSecurity(GATEWAY)
optional = BearerSecurity(GATEWAY, optional=True, scheme_name="maybe")
app = FastAPI(lifespan=lifespan(GATEWAY))
Reader = Annotated[Identity, Security(bearer, scopes=["orders:read"])]


@app.get("/orders")
async def orders(caller: Reader, request: Request) -> list[str]:
    assert identity(request) == caller
    return [caller.client_id, *sorted(caller.scopes)]


@app.get("/maybe")
async def maybe(caller: Annotated[Identity | None, Security(optional)]) -> str | None:
    return None if caller is None else caller.client_id


@app.get("/health")
async def health() -> str:
    return "well"


@app.websocket("/chat")
async def chat(websocket: WebSocket, caller: Reader) -> None:
    await websocket.accept()
    await websocket.send_text(caller.client_id)
    await websocket.close()


@pytest.fixture(params=SERVERS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application under one of the servers."""
    async with (
        serve(app, request.param) as authority,
        httpx.AsyncClient(base_url=f"http://{authority}") as client,
    ):
        yield client


def show(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_dependency_is_the_caller(client: httpx.AsyncClient) -> None:
    token = await GATEWAY.issue_token("shop", scopes=["orders:read"])
    assert (await client.get("/orders", headers=show(token))).json() == ["shop", "orders:read"]
    assert (await client.get("/maybe", headers=show(token))).json() == "shop"
    assert (await client.get("/maybe")).json() is None
    assert (await client.get("/health")).status_code == 200


async def test_rejections_have_the_status_and_the_challenge_of_a_gateway(
    client: httpx.AsyncClient,
) -> None:
    missing = await client.get("/orders")
    assert missing.status_code == 401
    assert missing.json() == {"detail": "A bearer token is needed."}
    assert missing.headers["WWW-Authenticate"] == (
        f'Bearer realm="gateway", scope="orders:read", '
        f'resource_metadata="{ISSUER}/.well-known/oauth-protected-resource"'
    )
    scope = await client.get("/orders", headers=show(await GATEWAY.issue_token()))
    assert scope.status_code == 403
    assert 'scope="orders:read"' in scope.headers["WWW-Authenticate"]
    with patch.object(
        GATEWAY.provider.reads, "get_token", side_effect=StoreUnavailableError("down")
    ):
        down = await client.get("/orders", headers=show("unknown"))
    assert (down.status_code, down.headers["Retry-After"]) == (503, "1")


async def test_handshake_of_a_websocket_is_checked(client: httpx.AsyncClient) -> None:
    url = f"{client.base_url}/chat"
    token = await GATEWAY.issue_token("shop", scopes=["orders:read"])
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, headers=show(token)) as socket:
            assert await socket.receive_str() == "shop"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(url)
        assert caught.value.status == 401
        assert caught.value.headers is not None
        assert caught.value.headers["WWW-Authenticate"].startswith('Bearer realm="gateway"')


def test_openapi_document_describes_the_scheme_and_the_scopes() -> None:
    document = app.openapi()
    scheme = document["components"]["securitySchemes"]["bearer"]
    assert scheme["type"] == "oauth2"
    assert scheme["flows"]["clientCredentials"] == {
        "tokenUrl": f"{ISSUER}/token",
        "scopes": {"orders:read": "orders:read", "orders:write": "orders:write"},
    }
    assert document["paths"]["/orders"]["get"]["security"] == [{"bearer": ["orders:read"]}]
    assert "security" not in document["paths"]["/health"]["get"]


@pytest.mark.filterwarnings("ignore:Using `httpx` with")
def test_synchronous_tests_of_an_application_issue_tokens_through_its_loop() -> None:
    from fastapi.testclient import TestClient  # noqa: PLC0415 - warns when it is imported

    with TestClient(app) as client:
        assert client.portal is not None
        token = client.portal.call(lambda: GATEWAY.issue_token("shop", scopes=["orders:read"]))
        assert client.get("/orders", headers=show(token)).status_code == 200
