"""Peers that open windows often, as some servers and clients do: no flood of control frames."""

from __future__ import annotations

import io

from http2.conftest import fetch, upstream_of
from hyperframe.frame import WindowUpdateFrame
from support.clients.h2_client import H2Client
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream
from support.servers.raw_upstream import Conversation, RawUpstream

TOTAL = 40 * 1024 * 1024
STEP = 4096
"""With two frames for each, twice as many control frames come as may at once."""
WIDE = 1 << 29
PIECE = b"x" * 65_536


def updates(stream: int, before: int, after: int) -> bytes:
    """WINDOW_UPDATE frames of the stream and of the connection, for each `STEP` between two
    positions of a body."""
    pair = WindowUpdateFrame(0, window_increment=1), WindowUpdateFrame(stream, window_increment=1)
    return b"".join(frame.serialize() for frame in pair) * (after // STEP - before // STEP)


async def test_upstream_may_open_windows_with_each_few_bytes(start: StartGateway) -> None:
    received = 0

    def widen(request: H2Request) -> None:
        for stream in (None, request.stream_id):
            request.connection.h2.increment_flow_control_window(WIDE, stream)
        request.connection.do(lambda h2: None)

    def give_back(request: H2Request, piece: bytes) -> None:
        nonlocal received
        transport = request.connection.transport
        if transport is not None:
            transport.write(updates(request.stream_id, received, received + len(piece)))
        received += len(piece)

    async with H2Upstream(
        on_head=widen, on_data=give_back, on_end=H2Request.respond, acknowledges=False
    ) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        body = io.BytesIO(b"x" * TOTAL)
        assert await fetch(gateway, "POST", data=body) == (200, b"ok")
        assert received == TOTAL
        assert len(upstream.connections) == 1


async def test_client_may_open_windows_with_each_few_bytes(
    client: H2Client, upstream: RawUpstream
) -> None:
    async def give(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        for _ in range(TOTAL // len(PIECE)):
            await conversation.send(PIECE)

    upstream.script = give
    client.opens_windows = False
    stream = client.begin()
    for one in (None, stream):
        client.core.increment_flow_control_window(WIDE, one)
    client.flush()
    response, seen = client.responses[stream], 0
    while not response.is_over:
        await client.wait_for_change()
        assert not client.is_closed, client.goaways
        client.writer.write(updates(stream, seen, len(response.data)))
        seen = len(response.data)
    assert len(response.data) == TOTAL
