"""Responses in very many chunks: a read of 256 KiB can hold 40,000 of them, and lets others have
their turns."""

from __future__ import annotations

import asyncio
import os
from typing import cast

import pytest

from fuzz.transport import Transport
from gateway.http.errors import UpstreamError
from gateway.http.fields import Trailers
from gateway.http.h1_body import MAX_CHUNKS_PER_FEED
from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import ResponseSink, UpstreamRequestHead

pytestmark = pytest.mark.skipif(
    "TEST_COMPILED" in os.environ, reason="compiled classes have no such subclass"
)

COUNT = 5 * MAX_CHUNKS_PER_FEED + 7
RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * COUNT
END = b"0\r\nT: 1\r\n\r\n"


class Exchange(ResponseSink):
    """A connection with a request on it, and what comes of it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.trailers: Trailers | None = None
        self.error: UpstreamError | None = None
        self.pauses = False
        self.released: list[UpstreamConnection] = []
        self.transport = Transport()
        self.connection = UpstreamConnection(
            asyncio.get_running_loop(),
            UpstreamTimeouts(),
            on_lost=lambda one: None,
            on_released=self.released.append,
        )
        self.connection.connection_made(cast(asyncio.BaseTransport, self.transport))
        self.connection.begin(self)
        head = UpstreamRequestHead(
            b"GET / HTTP/1.1\r\n", b"h", b"", method="GET", length=0, is_chunked=False
        )
        self.connection.send_request(head, ends=True)

    def body(self, piece: bytes) -> None:
        self.pieces.append(piece)
        if self.pauses:
            self.connection.pause_reading()

    def end(self, trailers: Trailers = ()) -> None:
        self.trailers = trailers
        self.connection.release()

    def failed(self, error: UpstreamError) -> None:
        self.error = error


async def turns(count: int = 2 * COUNT // MAX_CHUNKS_PER_FEED) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_chunks_of_one_read_are_read_in_turns() -> None:
    exchange = Exchange()
    exchange.connection.data_received(RESPONSE + END)
    read = 1
    while exchange.trailers is None:
        assert [len(piece) for piece in exchange.pieces] == [MAX_CHUNKS_PER_FEED] * read
        assert exchange.transport.is_paused, "nothing more is read meanwhile"
        read += 1
        await asyncio.sleep(0)
    assert b"".join(exchange.pieces) == b"x" * COUNT
    assert exchange.trailers == ((b"t", b"1"),)
    assert exchange.released == [exchange.connection]
    assert not exchange.transport.is_paused


async def test_sink_that_takes_no_more_is_given_no_more() -> None:
    """Whether it says so when it is given a piece, or between two."""
    exchange = Exchange()
    exchange.connection.data_received(RESPONSE + END)
    exchange.connection.pause_reading()
    await turns()
    assert len(exchange.pieces) == 1
    exchange.pauses = True
    exchange.connection.resume_reading()
    await turns()
    assert len(exchange.pieces) == 2
    assert exchange.transport.is_paused
    exchange.pauses = False
    exchange.connection.resume_reading()
    await turns()
    assert b"".join(exchange.pieces) == b"x" * COUNT
    assert exchange.released
    assert not exchange.transport.is_paused


@pytest.mark.parametrize("is_whole", [True, False])
async def test_what_came_before_the_connection_was_lost_is_read(is_whole: bool) -> None:
    exchange = Exchange()
    exchange.connection.data_received(RESPONSE + (END if is_whole else b""))
    exchange.connection.connection_lost(ConnectionResetError())
    await turns()
    assert b"".join(exchange.pieces) == b"x" * COUNT
    assert (exchange.trailers is not None, exchange.error is None) == (is_whole, is_whole)


async def test_exchange_that_is_cancelled_meanwhile_receives_nothing_more() -> None:
    exchange = Exchange()
    exchange.connection.data_received(RESPONSE + END)
    exchange.connection.cancel()
    await turns()
    assert len(exchange.pieces) == 1
    assert (exchange.trailers, exchange.error, exchange.transport.is_closed) == (None, None, True)


async def test_what_comes_behind_such_a_body_ends_the_connection() -> None:
    exchange = Exchange()
    exchange.connection.data_received(RESPONSE + END + b"HTTP/1.1 200 OK\r\n")
    await turns()
    assert exchange.trailers is not None
    assert not exchange.released
    assert exchange.transport.is_closed
