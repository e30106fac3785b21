"""`gateway.aiohttp.proxy_handler`: a reverse proxy in an aiohttp application."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer
from support.deadlines import settled, until, within
from support.embedded_config import config
from support.servers.raw_upstream import Conversation, RawUpstream, Script

from gateway.aiohttp import bearer_middleware, cleanup_ctx, proxy_handler, require_scopes
from gateway.testing import TemporaryGateway

Client = TestClient[web.Request, web.Application]


def closing_after(response: bytes) -> Script:
    """Send a response to the first request, and close."""

    async def run(conversation: Conversation, upstream: RawUpstream) -> None:
        received = await conversation.read_head()
        assert received is not None
        await conversation.read_body(received)
        await conversation.send(response)

    return run


@asynccontextmanager
async def proxy(
    url: str, gateway: TemporaryGateway | None = None, *, checks: bool = False, **how: object
) -> AsyncIterator[Client]:
    """An application that forwards what is below `/orders`."""
    gateway = gateway or TemporaryGateway(config())
    app = web.Application(middlewares=[bearer_middleware(gateway)] if checks else [])
    app.cleanup_ctx.append(cleanup_ctx(gateway))
    handler = proxy_handler(url, gateway, **how)  # type: ignore[arg-type]
    app.router.add_route("*", "/orders{tail:.*}", handler)
    app.router.add_route("*", "/admin", require_scopes("admin")(handler))
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


async def test_head_is_that_of_the_data_plane(upstream: RawUpstream) -> None:
    gateway = TemporaryGateway(config())
    async with proxy(upstream.url, gateway, checks=True) as client:
        token = await gateway.issue_token("shop", scopes=["orders:read"], subject="ann")
        async with client.get(
            "/orders/1?a=%20b",
            headers={
                "Authorization": f"Bearer {token}", "X-Client-Id": "admin", "X_Client_Id": "admin",
                "X-Forwarded-For": "192.0.2.1", "Connection": "X-Hop", "X-Hop": "1", "X-Kept": "é",
                "TE": "trailers", "X-Original-URL": "/admin", "Host": "shop.test",
                "Cookie": "gateway_session=1; own=2",
            },
        ) as response:  # fmt: skip
            assert (response.status, await response.text()) == (200, "ok")
            request_id = response.headers["X-Request-Id"]
    (received,) = upstream.requests
    assert received.all(b"x-request-id") == [request_id.encode()]
    assert received.request_line == b"GET /orders/1?a=%20b HTTP/1.1"
    for name, value in {
        b"x-client-id": b"shop", b"x-token-scopes": b"orders:read", b"x-token-subject": b"ann",
        b"x-forwarded-for": b"127.0.0.1", b"x-forwarded-host": b"shop.test",
        b"host": b"shop.test", b"via": b"1.1 gateway", b"cookie": b"own=2",
        b"x-kept": "é".encode(),
    }.items():  # fmt: skip
        assert received.all(name) == [value], name
    absent = {b"authorization", b"x-hop", b"te", b"x-original-url", b"x_client_id", b"connection"}
    assert not absent & set(received.names())


async def test_prefix_and_token_are_forwarded_as_asked(upstream: RawUpstream) -> None:
    async with proxy(upstream.url, strip_prefix="/orders", forward_token=True) as client:
        for path, expected in (("/orders/1", b"/1"), ("/orders", b"/"), ("/orders?a", b"/?a")):
            async with client.get(path, headers={"Authorization": "Basic eA=="}) as response:
                assert response.status == 200
            assert upstream.requests[-1].request_line == b"GET %b HTTP/1.1" % expected
        async with client.get("/ordersother") as response:
            assert response.status == 404
    assert upstream.requests[0].all(b"authorization") == [b"Basic eA=="]


@pytest.mark.parametrize(
    "path",
    ["/orders/../admin", "/orders/%2e%2e/admin", "/orders//1", "/orders/a%2Fb", "/orders;x/1",
     "/orders/..;/admin", "/orders/%252e%252e/admin", "/orders/%3b"],
)  # fmt: skip
async def test_path_that_has_two_meanings_is_not_forwarded(
    upstream: RawUpstream, path: str
) -> None:
    """The handler was chosen by one of them, and the upstream might take the other."""
    async with proxy(upstream.url) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        async with within():
            response = await reader.read()
        assert response.split()[1] == b"400"
        writer.close()
        await writer.wait_closed()
    assert upstream.requests == []


async def test_bodies_stream_both_ways() -> None:
    """The first piece of the response comes before the last one of the request was sent."""

    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    app = web.Application()
    app.router.add_post("/orders", echo)
    async with TestServer(app) as server, proxy(str(server.make_url(""))) as client:
        more = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            await more.wait()
            yield b"last"

        async with client.post("/orders", data=pieces()) as response:
            async with within():
                assert await response.content.readany() == b"first"
            more.set()
            assert await response.read() == b"last"


async def test_slow_client_slows_the_upstream() -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1024):
            await response.write(bytes(65536))
            sent += 1
        return response

    app = web.Application()
    app.router.add_get("/orders", flood)
    async with TestServer(app) as server, proxy(str(server.make_url(""))) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port, limit=1024)
        writer.write(b"GET /orders HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readline()
        await until(lambda: sent)
        assert (
            await settled(lambda: sent, for_s=0.5) < 512
        )  # of 64 MiB, what sockets and buffers hold
        writer.close()
        await writer.wait_closed()


async def test_slow_upstream_slows_the_client() -> None:
    may_read = asyncio.Event()

    async def take(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await may_read.wait()

    async with RawUpstream() as upstream:
        upstream.script = take
        async with proxy(upstream.url) as client:
            _, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
            sent = 0

            async def send() -> None:
                nonlocal sent
                while True:
                    writer.write(bytes(65536))
                    await writer.drain()
                    sent += 65536

            sending = asyncio.create_task(send())
            await until(lambda: sent)
            assert await settled(lambda: sent, for_s=0.5) < 64 * 1024 * 1024
            sending.cancel()
            may_read.set()
            writer.close()


async def test_failures_of_the_upstream_are_those_of_a_gateway(upstream: RawUpstream) -> None:
    cases = [
        (b"nonsense\r\n\r\n", 502, "upstream_protocol"),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502,
         "upstream_protocol"),
        (b"", 502, "upstream_silent"),
    ]  # fmt: skip
    async with proxy(upstream.url) as client:
        for sent, status, reason in cases:
            upstream.script = closing_after(sent)
            async with client.post("/orders") as response:
                assert response.status == status, sent
                assert (await response.json())["reason"] == reason
        async with client.get(
            "/orders", headers={"Connection": "Upgrade", "Upgrade": "websocket"}
        ) as response:
            assert (response.status, (await response.json())["reason"]) == (
                501,
                "upstream_websocket",
            )
    async with proxy("http://127.0.0.1:9") as client, client.get("/orders") as response:
        assert (response.status, (await response.json())["reason"]) == (
            502,
            "upstream_connect_failed",
        )


async def test_silent_upstream_is_a_timeout() -> None:
    async def stall(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.reader.read()

    async with RawUpstream() as upstream:
        upstream.script = stall
        async with (
            proxy(upstream.url, timeout_s=0.1) as client,
            client.get("/orders") as response,
        ):
            assert (response.status, (await response.json())["reason"]) == (
                504,
                "upstream_response_timeout",
            )


async def test_response_that_breaks_off_is_not_taken_for_a_whole_one(
    upstream: RawUpstream,
) -> None:
    upstream.script = closing_after(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    )
    async with proxy(upstream.url) as client:
        with pytest.raises((ClientPayloadError, ConnectionError)):
            async with client.get("/orders") as response:
                await response.read()


async def test_responses_are_passed_on_as_they_are(upstream: RawUpstream) -> None:
    gzip = b"\x1f\x8b not read"
    upstream.script = closing_after(
        b"HTTP/1.1 404 Nope\r\nContent-Encoding: gzip\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Set-Cookie: gateway_session=x\r\nX-Request-Id: theirs\r\nKeep-Alive: max=9\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(gzip), gzip)
    )
    async with proxy(upstream.url) as client, client.get("/orders") as response:
        assert (response.status, response.reason) == (404, "Nope")
        assert await response.read() == gzip
        assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert response.headers.getall("X-Request-Id") != ["theirs"]
        assert "Keep-Alive" not in response.headers
    upstream.script = closing_after(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    async with proxy(upstream.url) as client, client.head("/orders") as response:
        assert response.headers["Content-Length"] == "7"
    upstream.script = closing_after(
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    )
    async with (
        proxy(upstream.url) as client,
        client.get("/orders", allow_redirects=False) as response,
    ):
        assert (response.status, response.headers["Location"]) == (302, "/elsewhere")


@pytest.mark.parametrize("url", ["orders:9001", "ftp://orders", "http://orders/v1", "http://"])
def test_upstream_must_be_an_origin(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(url))):
        proxy_handler(url, TemporaryGateway())
