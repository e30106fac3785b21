"""`gateway.asgi`: the bearer check in Starlette, under uvicorn and Hypercorn."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from support.clients.h2_client import H2Client
from support.deadlines import within
from support.embedded_config import ISSUER, config
from support.jose_values import make_certificate, make_key, make_proof
from support.servers.asgi_servers import SERVERS, serve

from gateway.asgi import BearerMiddleware, find_identity, identity, lifespan
from gateway.testing import TemporaryGateway


async def show(request: Request) -> Response:
    caller = find_identity(request)
    return JSONResponse(None if caller is None else caller.client_id)


@requires("orders:write")
async def write(request: Request) -> Response:
    return JSONResponse(identity(request).client_id)


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(identity(websocket).client_id)
    await websocket.close()


def make_app(gateway: TemporaryGateway) -> Starlette:
    def check(**requirements: Any) -> list[Middleware]:
        return [Middleware(BearerMiddleware, gateway, **requirements)]

    return Starlette(
        routes=[
            Route("/", show, middleware=check()),
            Route("/read", show, middleware=check(scopes=["orders:read"])),
            Route("/write", write, middleware=check()),
            Route("/maybe", show, middleware=check(optional=True)),
            Route("/unchecked", show),
            Mount("/v1", routes=[Route("/orders", show)], middleware=check(resource=RESOURCE)),
            WebSocketRoute("/chat", chat, middleware=check(scopes=["orders:read"])),
        ],
        lifespan=lifespan(gateway),
    )


RESOURCE = "https://orders.test"


@pytest.fixture(params=SERVERS)
async def client(
    request: pytest.FixtureRequest, embedded: TemporaryGateway
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application under one of the servers."""
    async with (
        serve(make_app(embedded), request.param) as authority,
        httpx.AsyncClient(base_url=f"http://{authority}") as client,
    ):
        yield client


@asynccontextmanager
async def in_process(app: Any, gateway: TemporaryGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a server, for scopes that no server makes."""
    async with (
        gateway,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client,
    ):
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_challenge_is_that_of_the_routes_of_a_gateway(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == (
        f'Bearer realm="gateway", resource_metadata="{ISSUER}/.well-known/oauth-protected-resource"'
    )
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["reason"] == "missing"


async def test_tokens_are_checked_and_the_caller_is_known(
    embedded: TemporaryGateway, client: httpx.AsyncClient
) -> None:
    token = bearer(await embedded.issue_token("shop", scopes=["orders:read"]))
    assert (await client.get("/read", headers=token)).json() == "shop"
    assert (await client.get("/maybe", headers=token)).json() == "shop"
    assert (await client.get("/maybe")).json() is None
    assert (await client.get("/maybe", headers=bearer("unknown"))).status_code == 401
    none = await client.get("/read", headers=bearer(await embedded.issue_token("shop")))
    assert none.status_code == 403
    assert 'scope="orders:read"' in none.headers["WWW-Authenticate"]


async def test_requires_of_starlette_knows_the_scopes(
    embedded: TemporaryGateway, client: httpx.AsyncClient
) -> None:
    for scope, status in (("orders:read", 403), ("orders:write", 200)):
        token = await embedded.issue_token("shop", scopes=[scope])
        assert (await client.get("/write", headers=bearer(token))).status_code == status


async def test_revoked_token_is_rejected(
    embedded: TemporaryGateway, client: httpx.AsyncClient
) -> None:
    token = await embedded.issue_token()
    assert (await client.get("/", headers=bearer(token))).status_code == 200
    await embedded.revoke_token(token)
    assert (await client.get("/", headers=bearer(token))).status_code == 401


async def test_proof_of_a_bound_token_is_checked_below_a_mount(
    embedded: TemporaryGateway, client: httpx.AsyncClient
) -> None:
    key = make_key()
    token = await embedded.issue_token("shop", claims={"cnf": {"jkt": key.thumbprint()}})
    for path, status in (("/v1/orders", 200), ("/orders", 401)):
        proof = make_proof(key, "GET", RESOURCE + path, time.time(), token=token)
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
        assert (await client.get("/v1/orders", headers=headers)).status_code == status


async def test_handshake_of_a_websocket_is_checked(
    embedded: TemporaryGateway, client: httpx.AsyncClient
) -> None:
    url = f"{client.base_url}/chat"
    token = await embedded.issue_token("shop", scopes=["orders:read"])
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, headers=bearer(token)) as socket:
            assert await socket.receive_str() == "shop"
        for headers, status in (({}, 401), (bearer(await embedded.issue_token()), 403)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(url, headers=headers)
            assert caught.value.status == status
            assert caught.value.headers is not None
            assert caught.value.headers["WWW-Authenticate"].startswith('Bearer realm="gateway"')


async def test_request_of_http2_is_checked(embedded: TemporaryGateway) -> None:
    async with serve(make_app(embedded), "hypercorn") as authority:
        client = await H2Client.connect(int(authority.rpartition(":")[2]))
        async with client, within():
            token = await embedded.issue_token("shop")
            fields = [("authorization", f"Bearer {token}")]
            assert (await client.request("/", fields=fields)).status == 200
            assert (await client.request("/")).status == 401


async def test_route_without_the_middleware_knows_no_caller(client: httpx.AsyncClient) -> None:
    assert (await client.get("/unchecked")).status_code == 500


async def test_server_without_denial_responses_closes_the_handshake(
    embedded: TemporaryGateway,
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"a")], "scheme": "wss"}
    async with embedded:
        await BearerMiddleware(receive, embedded)(scope, receive, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_certificate_of_a_client_is_read_from_the_tls_extension(
    embedded: TemporaryGateway, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path, "shop")
    claims = {"cnf": {"x5t#S256": certificate.thumbprint}}
    pem = certificate.cert.read_text()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        extensions = {"tls": {"client_cert_chain": [pem] if scope["path"] == "/with" else []}}
        checked = BearerMiddleware(JSONResponse("ok"), embedded)
        await checked({**scope, "extensions": extensions}, receive, send)

    async with in_process(app, embedded) as client:
        token = bearer(await embedded.issue_token("shop", claims=claims))
        assert (await client.get("/with", headers=token)).status_code == 200
        rejected = await client.get("/without", headers=token)
        assert (rejected.status_code, rejected.json()["reason"]) == (401, "certificate")


@pytest.mark.parametrize(
    ("client", "server", "trusted"),
    [
        (None, ["/run/app", None], True),
        (None, ["a", 80], False),
        (["192.0.2.1", 5], ["a", 80], False),
    ],
)
async def test_peer_on_a_unix_socket_is_local(
    tmp_path: Path, client: Any, server: Any, trusted: bool
) -> None:
    """A trusted proxy names the client's certificate in a field."""
    values = config(client_certificate_header="X-Cert") | {"trusted_proxies": ["unix"]}
    gateway, certificate = TemporaryGateway(values), make_certificate(tmp_path, "shop")
    header = certificate.cert.read_text().replace("\n", "%0A").replace("+", "%2B")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with gateway:
        token = await gateway.issue_token(
            "shop", claims={"cnf": {"x5t#S256": certificate.thumbprint}}
        )
        scope = {
            "type": "http", "method": "GET", "path": "/", "client": client, "server": server,
            "headers": [(b"host", b"a"), (b"x-cert", header.encode()),
                        (b"authorization", b"Bearer %b" % token.encode())],
        }  # fmt: skip
        await BearerMiddleware(JSONResponse("ok"), gateway)(scope, send, send)  # type: ignore[arg-type]
    assert (sent[0]["status"] == 200) is trusted


async def test_gateway_that_was_not_started_says_what_to_do(embedded: TemporaryGateway) -> None:
    transport = httpx.ASGITransport(BearerMiddleware(JSONResponse("ok"), embedded))
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        with pytest.raises(RuntimeError, match="lifespan"):
            await client.get("/", headers=bearer("x"))
