"""WebSockets: after auth, and as nothing but WebSockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st
from support.deadlines import duration, scaled, settled, until, within
from support.jose_values import make_certificate
from support.running_gateway import (
    REGISTRATION_TOKEN,
    RunningGateway,
    StartGateway,
    basic,
)
from support.servers.raw_upstream import Conversation, RawUpstream
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve

from gateway.downstream.h1 import H1Connection
from gateway.proxy.token_watch import FrameBoundary

REGISTRATION = {"mode": "token", "token": REGISTRATION_TOKEN}
HANDSHAKE = (
    b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: %b\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
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


async def test_tls_client_that_is_gone_before_a_slow_upstream_reads_has_said_all(
    start: StartGateway, tmp_path: Path
) -> None:
    certificate, loop = make_certificate(tmp_path, "localhost"), asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=str(certificate.cert))

    def connect(port: int) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", port), timeout=scaled())
        return context.wrap_socket(plain, server_hostname="localhost")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        tls = {"cert": str(certificate.cert), "key": str(certificate.key)}
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        gateway = await start(url, listen={"tls": tls})
        with await asyncio.to_thread(connect, gateway.port) as client:
            client.sendall(HANDSHAKE % b"websocket")
            upstream, _ = await loop.sock_accept(listening)
            await loop.sock_recv(upstream, 65536)
            await loop.sock_sendall(upstream, SWITCHED)
            assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 101")
            [(server, _)] = gateway.gateway._data._servers
            [connection] = server.connections
            assert isinstance(connection, H1Connection)
            sent = 0
            while not connection._is_reading_paused:
                await asyncio.to_thread(client.sendall, bytes(65536))
                sent += 65536
            client.sendall(bytes(65536))
        await settled(lambda: gateway.gateway.connections)
        count = 0
        with upstream:
            async with within():
                while piece := await loop.sock_recv(upstream, 65536):
                    count += len(piece)
        assert count == sent + 65536


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


async def test_much_that_is_sent_before_the_switch_arrives(start: StartGateway) -> None:
    """More than is read ahead: the gateway reads on when it has switched."""
    early, is_paused = bytes(24 << 20), asyncio.Event()

    async def take(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await is_paused.wait()
        await conversation.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
        )
        await conversation.reader.readexactly(len(early))
        await conversation.send(b"all")

    async with RawUpstream(script=take) as upstream:
        gateway = await start(upstream.url)
        client = await gateway.connect()
        client.writer.write(HANDSHAKE % b"websocket" + early)
        assert await settled(client.writer.transport.get_write_buffer_size)
        is_paused.set()
        async with within():
            assert (await client.read_to_end()).endswith(b"\r\n\r\nall")


async def test_slow_side_of_a_tunnel_holds_the_other_back(start: StartGateway) -> None:
    sent = 0
    total = 80 << 20  # twice of what the buffers of sockets may grow to

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


# The end of a token.


async def start_watching(
    start: StartGateway,
    server: Server,
    *,
    watches: bool = True,
    credentials: Sequence[str] = ("bearer",),
    **sections: object,
) -> RunningGateway:
    port = next(iter(server.sockets)).getsockname()[1]
    api = {
        "name": "api", "match": {"path": "/api"}, "upstream": "main",
        "close_websockets_with_token": watches, "credentials": list(credentials),
    }  # fmt: skip
    return await start(f"http://127.0.0.1:{port}", routes=[api], **sections)


async def is_open(socket: ClientConnection) -> bool:
    await socket.send("still there?")
    return bool(await socket.recv() == "still there?")


@pytest.mark.parametrize("way", ["token", "client"])
async def test_websocket_is_closed_when_its_token_is_revoked(
    start: StartGateway, echo_server: Server, way: str
) -> None:
    gateway = await start_watching(start, echo_server)
    token = await gateway.token("shop")
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(f"ws://127.0.0.1:{gateway.port}/api", additional_headers=headers) as socket:
        assert await socket.recv() == "shop"
        assert await is_open(socket)
        if way == "token":
            await revoke(gateway, token)
        else:
            await gateway.gateway._provider.store.clients.delete_client("shop")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            async with within():
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    await until(lambda: not echo_server.connections)
    (line,) = [line for line in await gateway.logged(4 if way == "token" else 3)
               if line["path"] == "/api"]  # fmt: skip
    assert line["status"] == 101


async def test_websocket_is_closed_when_its_api_key_is_revoked(
    start: StartGateway, echo_server: Server
) -> None:
    gateway = await start_watching(start, echo_server, credentials=["api_key"])
    await gateway.create_client("shop")
    keys = "/api/v1/clients/shop/api-keys"
    _, key = await gateway.call_api("POST", keys, {"name": "k"})
    headers = {"X-API-Key": key["api_key"]}
    async with connect(f"ws://127.0.0.1:{gateway.port}/api", additional_headers=headers) as socket:
        assert await socket.recv() == "shop"
        # What is cached is looked up again by the same key.
        gateway.gateway.validator.forget_all()
        assert await is_open(socket)
        await gateway.call_api("DELETE", f"{keys}/{key['key_id']}")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            async with within():
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


async def test_websocket_is_closed_when_its_token_expires(
    start: StartGateway, echo_server: Server
) -> None:
    gateway = await start_watching(
        start, echo_server, provider={"token_ttl": "2s", "registration": REGISTRATION}
    )
    headers = {"Authorization": f"Bearer {await gateway.token('shop')}"}
    async with connect(f"ws://127.0.0.1:{gateway.port}/api", additional_headers=headers) as socket:
        assert await socket.recv() == "shop"
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            async with within():
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


async def test_websocket_outlives_its_token_unless_its_route_says_otherwise(
    start: StartGateway, echo_server: Server
) -> None:
    gateway = await start_watching(start, echo_server, watches=False)
    token = await gateway.token("shop")
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(f"ws://127.0.0.1:{gateway.port}/api", additional_headers=headers) as socket:
        await socket.recv()
        await revoke(gateway, token)
        async with gateway.session.get(gateway.url("/api"), headers=headers) as response:
            assert response.status == 401
        assert await is_open(socket)


async def test_websocket_whose_token_left_the_cache_is_looked_up_and_lives_on(
    start: StartGateway, echo_server: Server
) -> None:
    gateway = await start_watching(start, echo_server, cache={"ttl": "1s"})
    headers = {"Authorization": f"Bearer {await gateway.token('shop')}"}
    async with connect(f"ws://127.0.0.1:{gateway.port}/api", additional_headers=headers) as socket:
        await socket.recv()
        before = await gateway.metric("gateway_token_cache_lookups_total", result="miss")

        async def is_looked_up() -> bool:
            now = await gateway.metric("gateway_token_cache_lookups_total", result="miss")
            return now >= before + 2

        await until(is_looked_up)
        assert await is_open(socket)


async def revoke(gateway: RunningGateway, token: str) -> None:
    async with gateway.session.post(
        gateway.url("/revoke"), data={"token": token}, headers=basic("shop", "secret")
    ) as response:
        assert response.status == 200


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 40), st.booleans())
def test_place_between_frames_is_known_however_they_arrive(
    payloads: list[bytes], step: int, is_masked: bool
) -> None:
    stream, borders = b"", {0}
    for payload in payloads:
        size, mask = len(payload), 0x80 if is_masked else 0
        head = bytes([0x82, mask | size]) if size < 126 else (
            bytes([0x82, mask | 126]) + size.to_bytes(2)
        )  # fmt: skip
        stream += head + (b"mask" if is_masked else b"") + payload
        borders.add(len(stream))
    boundary = FrameBoundary()
    for at in range(0, len(stream), step):
        boundary.feed(stream[at : at + step])
        assert boundary.is_between_frames is (min(at + step, len(stream)) in borders)


def test_long_frame_is_followed() -> None:
    boundary = FrameBoundary()
    boundary.feed(b"\x82\x7f" + (70_000).to_bytes(8) + b"x" * 69_999)
    assert not boundary.is_between_frames
    boundary.feed(b"x")
    assert boundary.is_between_frames


async def test_frame_of_ours_is_never_put_into_one_of_the_upstreams(
    start: StartGateway,
) -> None:
    async def half_a_frame(conversation: Conversation, _: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(
            b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x82\x05he"
        )
        await conversation.reader.read()

    async with RawUpstream(script=half_a_frame) as upstream:
        api = {
            "name": "api", "match": {"path": "/api"}, "upstream": "main",
            "close_websockets_with_token": True,
        }  # fmt: skip
        gateway = await start(upstream.url, routes=[api])
        token = await gateway.token("shop")
        client = await gateway.connect()
        head = HANDSHAKE.replace(b"/public", b"/api") % b"websocket"
        await client.send(head[:-2] + f"Authorization: Bearer {token}\r\n\r\n".encode())
        async with within():
            await client.reader.readuntil(b"\x82\x05he")
            await revoke(gateway, token)
            assert await client.reader.read() == b""
