"""Bodies of any size, both ways, without holding them: back-pressure and SSE."""

from __future__ import annotations

import asyncio
import os
import socket

from support.deadlines import settled, until
from support.protocols import all_protocols, only_http1_upstream
from support.running_gateway import RunningGateway
from support.servers.raw_upstream import Conversation, RawUpstream

pytestmark = all_protocols

CHUNK = b"x" * 65536
GET = b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n"


def keep_receive_buffer_small(writer: asyncio.StreamWriter) -> None:
    """Or the kernel may let it grow until all of the body is in there."""
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)


async def test_event_reaches_the_client_before_the_next_one_is_made(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    seen = 0

    async def send_events(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(5):
            event = b"data: %d\n\n" % number
            await conversation.send(b"%x\r\n%b\r\n" % (len(event), event))
            # Unbuffered, or this waits for ever: the client has to have seen the event.
            await until(lambda now=number: seen > now)  # type: ignore[misc]
        await conversation.send(b"0\r\n\r\n")

    upstream.script = send_events
    async with gateway.session.get(gateway.url("/public")) as response:
        assert response.content_type == "text/event-stream"
        async for event in response.content.iter_any():
            assert event == b"data: %d\n\n" % seen
            seen += 1
    assert seen == 5


@only_http1_upstream
async def test_slow_reader_holds_the_upstream_back(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    sent = 0
    total = 1000 * len(CHUNK)  # twice of what the buffers of two sockets may grow to

    async def send_much(conversation: Conversation, upstream: RawUpstream) -> None:
        nonlocal sent
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await conversation.send(CHUNK)
            sent += len(CHUNK)

    upstream.script = send_much
    client = await gateway.connect()
    keep_receive_buffer_small(client.writer)
    await client.send(GET)
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"Content-Length: %d" % total in head

    held = await settled(lambda: sent)
    assert held < total / 2, "socket buffers may fill, but the gateway must not take it all"
    received = 0
    while received < total:
        received += len(await client.reader.read(1 << 20))
    assert received == total


@only_http1_upstream
async def test_slow_upstream_holds_the_client_back(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    may_read = asyncio.Event()
    received = 0
    total = 1000 * len(CHUNK)  # twice of what the buffers of four sockets may grow to, and more

    async def read_late(conversation: Conversation, upstream: RawUpstream) -> None:
        nonlocal received
        keep_receive_buffer_small(conversation.writer)
        await conversation.read_head()
        await may_read.wait()
        while received < total:
            received += len(await conversation.reader.read(1 << 20))
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream.script = read_late
    client = await gateway.connect()
    await client.send(b"PUT /public HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % total)
    sent = 0

    async def send_all() -> None:
        nonlocal sent
        while sent < total:
            await client.send(CHUNK)
            sent += len(CHUNK)

    sending = asyncio.create_task(send_all())
    held = await settled(lambda: sent)
    assert 0 < held < total / 2
    assert not sending.done()
    may_read.set()
    await sending
    assert (await client.read_response()).body == b"ok"
    assert received == total


async def test_chunked_upload_of_unknown_length_arrives_whole(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    async def pieces() -> object:
        for number in range(50):
            yield b"%d," % number

    async with gateway.session.post(gateway.url("/public"), data=pieces()) as response:
        assert response.status == 200
    (received,) = upstream.requests
    assert received.body == b"".join(b"%d," % number for number in range(50))
    assert received.all(b"transfer-encoding") == [b"chunked"]


async def test_both_directions_stream_at_once(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    async def echo(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n")
        for _ in range(5):
            await conversation.send(await conversation.reader.readexactly(5))

    upstream.script = echo
    client = await gateway.connect()
    await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 25\r\n\r\n")
    for number in range(5):
        piece = b"no. %d" % number
        await client.send(piece)
        if number == 0:
            await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.readexactly(5) == piece
