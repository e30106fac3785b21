"""The client's connection byte by byte: whatever the wire does, requests come out the same.

The transport is one that keeps what is written, so that every split can be tried; the
other tests of this folder speak over real sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, cast

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import settings
from support.deadlines import until
from support.wire import Wire, respond

from fuzz.transport import Transport
from gateway.addresses import Networks
from gateway.downstream.connections import ConnectionManager
from gateway.downstream.h1 import MAX_BUFFERED_BYTES
from gateway.downstream.request import Request
from gateway.downstream.turns import PIECE_BYTES, WORK_PER_TURN, Turns
from gateway.metrics import Metrics

STREAM = (
    b"GET /a?q HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n"
    b"\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    b"PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
    b"HEAD /d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n"
)
REQUESTS = [
    ("GET", "/a", b"", True),
    ("POST", "/b", b"hello", True),
    ("PUT", "/c", b"abcde", True),
    ("HEAD", "/d", b"", True),
]


@pytest.fixture(autouse=True)
async def loop() -> None:
    """Connections need a running event loop."""


def splits(stream: bytes) -> Iterator[list[bytes]]:
    yield [stream]
    yield [stream[at : at + 1] for at in range(len(stream))]
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]
    for width in range(2, 40):
        borders = [*range(0, len(stream), width), len(stream)]
        yield [stream[start:end] for start, end in pairwise(borders)]


async def test_requests_come_out_the_same_wherever_the_stream_is_split() -> None:
    for pieces in splits(STREAM):
        wire = Wire()
        for piece in pieces:
            wire.receive(piece)
        assert wire.summary() == REQUESTS, pieces
        assert wire.transport.written == b"AAAA"
        assert wire.transport.is_over


BROKEN = [
    b"GET /a HTTP/1.1\nHost: h\n\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length : 1\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\n X: folded\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\nX: \x00\r\n\r\n",
    b"GET /a HTTP/0.9\r\n\r\n",
    b"GET /a\r\n\r\n",
]


@pytest.mark.parametrize("stream", BROKEN)
async def test_broken_head_is_refused_once_and_nothing_behind_it_is_read(stream: bytes) -> None:
    behind = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    for pieces in splits(stream + behind):
        wire = Wire()
        for piece in pieces:
            wire.receive(piece)
        assert len(wire.seen) == 1
        assert wire.seen[0].request.error is not None
        assert wire.transport.written == b"E"
        assert wire.transport.has_ended, "told that the response is over, and listened to"


async def test_broken_chunk_fails_the_body_and_ends_the_connection() -> None:
    head = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    for pieces in splits(head + b"1\r\nabc\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: h\r\n\r\n"):
        wire = Wire()
        for piece in pieces:
            wire.receive(piece)
        (seen,) = wire.seen
        assert seen.error is not None
        assert not seen.is_complete
        assert wire.transport.has_ended


async def test_next_request_waits_for_the_response_and_the_client_with_it() -> None:
    wire = Wire(holds=True)
    wire.receive(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
    following = b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    for _ in range(MAX_BUFFERED_BYTES // len(following) + 1):
        assert not wire.transport.is_paused
        wire.receive(following)
    assert wire.transport.pauses == 1
    assert len(wire.seen) == 1
    assert len(wire.connection._buffer) < MAX_BUFFERED_BYTES + 2 * len(following)
    wire.holds = False
    respond(wire.connection, wire.seen[0].request)
    while wire.connection._buffer:
        await asyncio.sleep(0)
    assert not wire.transport.is_paused
    assert {path for _, path, *_ in wire.summary()[1:]} == {"/2"}
    assert len(wire.transport.written) == len(wire.seen)


async def test_pipelined_requests_let_others_have_their_turn() -> None:
    """However many connections pipeline, so many requests are begun in a turn of the loop."""
    wires = [Wire() for _ in range(5)]
    for wire in wires:
        wire.connection._server.turns = wires[0].server.turns
        wire.receive(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n" * 20, turns=False)
    counts = [1] * 5
    assert [len(wire.seen) for wire in wires] == counts, "a request that has just come is read"
    while sum(counts) < 100:
        await asyncio.sleep(0)
        before, counts = counts, [len(wire.seen) for wire in wires]
        assert sum(counts) - sum(before) <= WORK_PER_TURN
        assert max(counts) - min(counts) <= 2, "each connection has its turn"
    assert all(wire.transport.written == b"A" * 20 for wire in wires)


async def test_client_that_sends_ahead_of_its_responses_is_read_no_faster() -> None:
    """Though nothing is in flight between two responses, what waits is not added to."""
    wire = Wire()
    following = b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    sent = 0
    while sent < 10 * MAX_BUFFERED_BYTES:
        if not wire.transport.is_paused:
            wire.receive(following * 1000, turns=False)
            sent += len(following) * 1000
        held = len(wire.connection._buffer) + len(wire.connection._behind)
        assert held <= MAX_BUFFERED_BYTES + len(following) * 1000
        await asyncio.sleep(0)


async def test_of_what_came_ahead_only_a_part_is_copied_for_each_request() -> None:
    wire = Wire()
    head = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
    count = 20 * PIECE_BYTES // len(head)
    wire.receive(head * count, turns=False)
    await asyncio.sleep(0)
    assert len(wire.connection._buffer) <= PIECE_BYTES
    wire.receive(head[:9])
    assert len(wire.seen) == count
    wire.receive(head[9:])
    assert wire.transport.written == b"A" * (count + 1)


@pytest.mark.parametrize("length", [PIECE_BYTES - 100, 3 * PIECE_BYTES])
async def test_body_that_came_ahead_in_parts_is_whole(length: int) -> None:
    wire = Wire()
    body = bytes(range(256)) * (length // 256)
    head = b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
    wire.receive((head + body) * 5)
    assert [seen.body for seen in wire.seen] == [body] * 5


async def test_client_that_takes_no_responses_gets_no_more_of_them() -> None:
    wire = Wire()
    wire.receive(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
    wire.connection.pause_writing()
    for _ in range(10):
        wire.receive(b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert len(wire.seen) == 1
    wire.connection.resume_writing()
    wire.receive(b"GET /3 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert len(wire.seen) == 12


async def test_small_body_of_a_refused_request_is_skipped_and_the_connection_kept() -> None:
    wire = Wire(holds=True)
    wire.receive(b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
    wire.holds = False
    respond(wire.connection, wire.seen[0].request)
    wire.receive(b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert wire.summary()[1:] == [("GET", "/2", b"", True)]


async def test_same_head_is_not_read_twice_and_another_one_is() -> None:
    wire = Wire()
    for host in (b"a", b"a", b"b"):
        wire.receive(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    first, second, third = (seen.request.head for seen in wire.seen)
    assert first is second
    assert (first.host, third.host) == ((b"a", "a"), (b"b", "b"))


async def test_client_gets_100_for_a_body_that_it_holds_back() -> None:
    wire = Wire()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    wire.receive(head)
    assert wire.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.receive(b"ok")
    wire.receive(head + b"ok")
    assert wire.transport.written == b"HTTP/1.1 100 Continue\r\n\r\nAA"


class LlhttpEvents:
    """What llhttp makes of the same bytes."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    def on_url(self, target: bytes) -> None:
        """The target."""
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field."""
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self.is_complete = True


parts = st.sampled_from(
    [b"Host: h\r\n", b"X: 1\r\n", b"X:1 \r\n", b"Y:\r\n", b"Content-Length: 0\r\n", b"\r\n", b"\n",
     b"\r", b" ", b":", b"\t", b"\x00", b"Z", b"Content-Length: 3\r\n", b"X-\xe9: 1\r\n",
     b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"X: \xff\r\n", b"Host: i\r\n"]
)  # fmt: skip


@given(st.lists(parts, max_size=8).map(b"".join))
def test_head_that_is_taken_llhttp_takes_and_reads_the_same(lines: bytes) -> None:
    async def read() -> Request | None:
        wire = Wire(holds=True)
        wire.receive(head)
        return wire.seen[0].request if wire.seen else None

    head = b"GET /a HTTP/1.1\r\n" + lines + b"\r\n"
    end = head.find(b"\r\n\r\n")
    request = asyncio.run(read())
    if request is None or request.error is not None:
        return
    events = LlhttpEvents()
    httptools.HttpRequestParser(events).feed_data(head[: end + 4])
    assert events.is_complete
    assert events.target == b"/a"
    assert events.fields == request.head.raw_fields()


async def test_who_has_left_before_the_first_look_is_not_taken_for_a_local_peer() -> None:
    """Its address is gone, and its bytes may still be here."""

    class Gone(Transport):
        def get_extra_info(self, name: str) -> Any:
            return None

    server = ConnectionManager(
        lambda stream, request: None,
        limits=settings.CLIENT_LIMITS,
        metrics=Metrics(),
        trusted_proxies=Networks(has_local=True),
    )
    remote, local = server.make_connection(), server.local_connection()
    for connection in (remote, local):
        connection.connection_made(cast(asyncio.BaseTransport, Gone()))
    assert (remote.peer.address, remote.peer.is_trusted) == ("0.0.0.0", False)
    assert (local.peer.address, local.peer.is_trusted) == ("unix", True)


async def test_turn_that_fails_holds_up_no_other() -> None:
    turns, count = Turns(), 3 * int(WORK_PER_TURN)
    taken: list[int] = []

    def fail() -> None:
        raise RuntimeError("a turn that fails")

    turns.wait(fail)
    for number in range(count):
        turns.wait(partial(taken.append, number))
    await until(lambda: len(taken) == count)
    assert taken == list(range(count))
