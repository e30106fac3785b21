"""WebSockets: after auth, and as nothing but WebSockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import websockets
from support.deadlines import duration, settled, until
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve

HANDSHAKE = (
    b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: %b\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
async def echo_server() -> AsyncIterator[Server]:
    async def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        await connection.send(connection.request.headers.get("X-Client-Id", "nobody"))
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        yield server


@pytest.fixture
async def gateway(start: StartGateway, echo_server: Server) -> RunningGateway:
    port = next(iter(echo_server.sockets)).getsockname()[1]
    return await start(f"http://127.0.0.1:{port}")


async def test_websocket_echoes_through_the_gateway_after_auth(gateway: RunningGateway) -> None:
    headers = {"Authorization": f"Bearer {await gateway.token('shop')}"}
    url = f"ws://127.0.0.1:{gateway.port}/api/ws"
    async with connect(url, additional_headers=headers, max_size=None, compression=None) as socket:
        assert await socket.recv() == "shop"
        for message in ("hello", "x" * 1_000_000, b"\x00\xff" * 500_000):
            await socket.send(message)
            assert await socket.recv() == message
    (line,) = [line for line in await gateway.logged(3) if line["path"] == "/api/ws"]
    assert (line["status"], line["route"]) == (101, "api")
    assert line["bytes_in"] > 2_000_000
    assert await gateway.metric("gateway_inflight_requests") == 0


async def test_websocket_without_a_token_is_401_and_never_reaches_the_upstream(
    gateway: RunningGateway,
) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{gateway.port}/api/ws"):
            pass
    assert refused.value.response.status_code == 401


async def test_end_of_either_side_ends_the_other(
    gateway: RunningGateway, echo_server: Server
) -> None:
    url = f"ws://127.0.0.1:{gateway.port}/public"
    async with connect(url) as socket:
        await socket.recv()
        assert len(echo_server.connections) == 1
        socket.transport.abort()
    await until(lambda: not echo_server.connections)
    async with connect(url) as socket:
        await socket.recv()
        next(iter(echo_server.connections)).transport.abort()
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await socket.recv()


async def test_silent_tunnel_is_ended(start: StartGateway, echo_server: Server) -> None:
    port = next(iter(echo_server.sockets)).getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    gateway = await start(
        url, upstreams={"main": {"targets": [url], "timeouts": {"tunnel": duration(0.5)}}}
    )
    async with connect(f"ws://127.0.0.1:{gateway.port}/public", ping_interval=None) as socket:
        await socket.recv()
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await socket.recv()


async def test_other_protocol_is_not_switched_to(start: StartGateway) -> None:
    async with RawUpstream() as upstream:
        gateway = await start(upstream.url)
        client = await gateway.connect()
        await client.send(HANDSHAKE % b"h2c")
        assert (await client.read_response()).status == 200
        assert not {b"upgrade", b"connection"} & set(upstream.requests[0].names())


async def test_refused_handshake_is_an_ordinary_response(start: StartGateway) -> None:
    async with RawUpstream() as upstream:
        upstream.respond = lambda received: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
        gateway = await start(upstream.url)
        client = await gateway.connect()
        for _ in range(2):
            await client.send(HANDSHAKE % b"websocket")
            response = await client.read_response()
            assert (response.status, response.body) == (403, b"no")
        assert upstream.requests[0].all(b"upgrade") == [b"websocket"]
        assert upstream.requests[0].all(b"connection") == [b"Upgrade"]


async def test_switch_to_something_else_is_502(start: StartGateway) -> None:
    async with RawUpstream() as upstream:
        upstream.respond = lambda received: (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
        )
        gateway = await start(upstream.url)
        client = await gateway.connect()
        await client.send(HANDSHAKE % b"websocket")
        assert (await client.read_response()).status == 502


async def test_bytes_sent_along_with_the_switch_arrive(start: StartGateway) -> None:
    async def talk(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst"
        )
        assert await conversation.reader.readexactly(5) == b"early"
        await conversation.send(b"last")

    async with RawUpstream(script=talk) as upstream:
        gateway = await start(upstream.url)
        client = await gateway.connect()
        # Bytes of the new protocol right behind the handshake are no second request.
        await client.send(HANDSHAKE % b"websocket" + b"early")
        response = await client.read_to_end()
        head, _, rest = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert rest == b"firstlast"


async def test_slow_side_of_a_tunnel_holds_the_other_back(start: StartGateway) -> None:
    sent = 0
    total = 30 << 20

    async def flood(conversation: Conversation, upstream: RawUpstream) -> None:
        nonlocal sent
        await conversation.read_head()
        await conversation.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
        )
        while sent < total:
            await conversation.send(b"x" * 65536)
            sent += 65536

    async with RawUpstream(script=flood) as upstream:
        gateway = await start(upstream.url)
        client = await gateway.connect()
        await client.send(HANDSHAKE % b"websocket")
        await client.reader.readuntil(b"\r\n\r\n")
        assert 0 < await settled(lambda: sent) < total / 2
        received = 0
        while received < total:
            received += len(await client.reader.read(1 << 20))
        assert received == total
