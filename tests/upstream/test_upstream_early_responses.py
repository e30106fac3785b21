"""Responses before the request is whole, and deadlines while it is another side's turn to act."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from typing import Any

import pytest
from support.deadlines import duration, settled, until, within
from support.protocols import each_protocol, only_http1_upstream
from support.running_gateway import RawClient, RunningGateway, StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream

from gateway.http.errors import UpstreamError
from gateway.http.response_head import ResponseHead
from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import ResponseSink, UpstreamRequestHead
from gateway.upstream.target import Target

pytestmark = each_protocol

TOO_LARGE = b"HTTP/1.1 413 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
UPLOAD = b"PUT /public/file HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
DOWNLOAD_BYTES = 32 * 1024 * 1024
STALLED = "stalled"


class Recorder(ResponseSink):
    """Keeps what becomes of an exchange."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[tuple[int, bytes] | UpstreamError] = (
            asyncio.get_running_loop().create_future()
        )

    def whole(self, head: ResponseHead, body: bytes) -> None:
        self.outcome.set_result((head.status, body))

    def failed(self, error: UpstreamError) -> None:
        self.outcome.set_result(error)


@pytest.mark.skipif("TEST_COMPILED" in os.environ, reason="compiled classes have no such subclass")
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_response_that_came_before_a_write_failed_is_received(is_chunked: bool) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = Target(f"http://127.0.0.1:{listening.getsockname()[1]}", UpstreamTimeouts())
        lost: list[UpstreamConnection] = []
        connection = await target.dial(
            "",
            lambda: UpstreamConnection(
                loop, target.timeouts, on_lost=lost.append, on_released=lambda one: None
            ),
        )
        server, _ = listening.accept()
        sink = Recorder()
        connection.begin(sink)
        length = -1 if is_chunked else 100_000
        head = UpstreamRequestHead(
            b"PUT / HTTP/1.1\r\n", b"h", b"", method="PUT", length=length, is_chunked=is_chunked
        )
        connection.send_request(head, ends=False)
        connection.send_body(b"x" * 1000)
        await until(lambda: select.select([server], [], [], 0)[0])
        # Closing with bytes unread resets the connection; the response is there all the same.
        server.sendall(TOO_LARGE)
        server.close()
        connection.send_body(b"x" * 99_000)
        async with within():
            assert await sink.outcome == (413, b"big")
        await until(lambda: lost)


async def stall(conversation: Conversation, upstream: RawUpstream) -> None:
    """Begin a response, and never continue it."""
    await conversation.read_head()
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    await conversation.reader.read()


async def start_with_a_stalled_route(
    start: StartGateway, upstream: RawUpstream, stalled: RawUpstream, **timeouts: str
) -> RunningGateway:
    """`/stalled` has the timeouts of `/public`, and runs into them."""
    return await start(
        "",
        upstreams={
            "main": {"targets": [upstream.url], "timeouts": timeouts},
            STALLED: {"targets": [stalled.url], "timeouts": timeouts},
        },
        routes=[
            {"name": name, "match": {"path": path}, "upstream": name, "auth": "none"}
            for name, path in (("main", "/public"), (STALLED, f"/{STALLED}"))
        ],
    )


async def idle_timeout_has_passed(gateway: RunningGateway) -> None:
    """Wait for as long as another exchange is granted in which nothing moves."""
    response = await gateway.send(b"GET /stalled HTTP/1.1\r\nHost: h\r\n\r\n")
    assert response.endswith(b"\r\n\r\nhalf")


@pytest.mark.parametrize("bytes_at_a_time", [0, 1024])
async def test_upstream_is_not_late_while_its_client_reads_little_or_nothing(
    start: StartGateway, bytes_at_a_time: int
) -> None:
    sent = 0

    async def send_much(conversation: Conversation, upstream: RawUpstream) -> None:
        nonlocal sent
        await conversation.read_head()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DOWNLOAD_BYTES
        await conversation.send(head)
        piece = b"x" * 65536
        while sent < DOWNLOAD_BYTES:
            await conversation.send(piece)
            sent += len(piece)
        await conversation.reader.read()

    async with RawUpstream(script=send_much) as upstream, RawUpstream(script=stall) as stalled:
        gateway = await start_with_a_stalled_route(start, upstream, stalled, idle=duration(0.3))
        client = await gateway.connect()
        await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: sent > 0)
        await settled(lambda: sent)
        assert sent < DOWNLOAD_BYTES
        over = asyncio.create_task(idle_timeout_has_passed(gateway))
        assert (await client.read_response(has_body=False)).status == 200
        taken = 0
        while bytes_at_a_time and not over.done():
            taken += len(await client.reader.read(bytes_at_a_time))
            await asyncio.sleep(0.01)  # a pace, not a wait for something
        await over
        async with within():
            await client.reader.readexactly(DOWNLOAD_BYTES - taken)


async def upload_meanwhile(client: RawClient, received: list[int], over: asyncio.Task[Any]) -> None:
    """Send one byte after the other, each when the one before has arrived, until `over` is done."""
    sent = 0
    while not over.done():
        await client.send(b"1\r\nx\r\n")
        sent += 1
        await until(lambda: received[0] >= sent)  # noqa: B023 - awaited at once
    await over
    await client.send(b"0\r\n\r\n")


def receive_upload(received: list[int], first: bytes) -> Any:
    """A script that sends `first`, then counts the bytes of a chunked body, then responds."""

    async def script(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(first)
        while size := int(await conversation.reader.readuntil(b"\r\n"), 16):
            await conversation.reader.readexactly(size + 2)
            received[0] += size
        is_begun = b" 200 " in first
        await conversation.send(b"0\r\n\r\n" if is_begun else OK)

    return script


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
async def test_upload_that_moves_renews_the_deadline_of_a_response_that_has_begun(
    start: StartGateway, first: bytes
) -> None:
    received = [0]
    script = receive_upload(received, first)
    async with RawUpstream(script=script) as upstream, RawUpstream(script=stall) as stalled:
        gateway = await start_with_a_stalled_route(start, upstream, stalled, idle=duration(1))
        client = await gateway.connect()
        await client.send(UPLOAD)
        over = asyncio.create_task(idle_timeout_has_passed(gateway))
        await upload_meanwhile(client, received, over)
        async with within():
            response = await client.read_response()
            if response.status == 102:
                response = await client.read_response()
        assert response.status == 200


@only_http1_upstream
async def test_slow_upload_on_a_used_connection_outlives_its_keep_alive(
    start: StartGateway,
) -> None:
    received = [0]
    upload = receive_upload(received, b"")
    waiting: list[Conversation] = []

    async def script(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        waiting.append(conversation)
        await until(lambda: len(waiting) == 2)  # so that there are two connections
        await conversation.send(OK)
        await upload(conversation, upstream)

    async with RawUpstream(script=script) as upstream:
        gateway = await start(
            "",
            upstreams={"main": {"targets": [upstream.url], "timeouts": {"keepalive": duration(1)}}},
        )
        clients = [await gateway.connect() for _ in range(2)]
        for client in clients:
            await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [(await client.read_response()).status for client in clients] == [200, 200]
        await clients[0].send(UPLOAD)
        other_ended = asyncio.create_task(until(lambda: upstream.open_connections == 1))
        await upload_meanwhile(clients[0], received, other_ended)
        assert (await clients[0].read_response()).status == 200
