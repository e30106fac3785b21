"""Small bodies of requests to upstreams of HTTP/2: as few frames as they take."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.http.h2 import PREFACE
from gateway.upstream.h2 import MultiplexedConnection
from gateway.upstream.h2_stream import MAX_HELD_BYTES, MultiplexedStream
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import ResponseSink, UpstreamRequestHead

DATA, HEADERS = 0, 1
Frames = list[tuple[int, bool, bytes]]


class _Wire:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def frames(self) -> Frames:
        """Type, whether it ends the stream, and payload, of HEADERS and DATA."""
        data, found = self.written.removeprefix(PREFACE), []
        while data:
            size, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
            if kind in {DATA, HEADERS}:
                found.append((kind, bool(flags & 1), data[9 : 9 + size] if kind == DATA else b""))
            data = data[9 + size :]
        return found


def begin() -> tuple[_Wire, MultiplexedConnection, MultiplexedStream]:
    connection = MultiplexedConnection(
        asyncio.get_running_loop(),
        UpstreamTimeouts(),
        scheme=b"http",
        on_lost=lambda one: None,
        on_changed=lambda one: None,
    )
    wire: Any = _Wire()
    connection.attach(wire)
    stream = connection.open(ResponseSink())
    head = UpstreamRequestHead(b"POST /a HTTP/1.1\r\n", b"h", b"", method="POST", is_chunked=True)
    stream.send_request(head, ends=False)
    stream.flush()
    return wire, connection, stream


async def test_small_body_goes_in_one_frame_with_its_end() -> None:
    wire, connection, stream = begin()
    stream.send_body(b"abc")
    stream.end_body()
    await asyncio.sleep(0)
    assert wire.frames() == [(HEADERS, False, b""), (DATA, True, b"abc")]
    connection.lost()


async def test_piece_does_not_wait_for_the_end_longer_than_a_turn() -> None:
    wire, connection, stream = begin()
    stream.send_body(b"abc")
    await asyncio.sleep(0)
    assert wire.frames() == [(HEADERS, False, b""), (DATA, False, b"abc")]
    stream.end_body()
    await asyncio.sleep(0)
    assert wire.frames()[2:] == [(DATA, True, b"")]
    connection.lost()


async def test_pieces_stay_in_order() -> None:
    wire, connection, stream = begin()
    large = b"x" * (MAX_HELD_BYTES + 1)
    for piece in (b"a", b"b", large, b"c"):
        stream.send_body(piece)
    stream.end_body(((b"x-sum", b"1"),))
    await asyncio.sleep(0)
    frames = wire.frames()
    assert b"".join(payload for _, _, payload in frames) == b"ab" + large + b"c"
    assert [kind for kind, ends, _ in frames if ends] == [HEADERS]  # the trailers
    connection.lost()


async def test_piece_that_is_held_is_not_sent_after_the_stream_was_given_up() -> None:
    wire, connection, stream = begin()
    await asyncio.sleep(0)
    stream.send_body(b"abc")
    stream.cancel()
    await asyncio.sleep(0)
    assert wire.frames() == [(HEADERS, False, b"")]
    connection.lost()
