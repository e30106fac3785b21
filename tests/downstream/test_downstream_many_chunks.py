"""Bodies in very many chunks: a read of 256 KiB can hold 40,000 of them, and lets others have their
turns."""

from __future__ import annotations

import asyncio

import pytest
from support.wire import Seen, Wire, respond

from gateway.downstream.turns import WORK_PER_TURN
from gateway.http.h1_body import MAX_CHUNKS_PER_FEED

HEAD = b"POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
COUNT = 10 * MAX_CHUNKS_PER_FEED + 7
SIZES = {"usual": b"1\r\nx\r\n", "with an extension": b"1;a=b\r\nx\r\n"}


@pytest.fixture(autouse=True)
async def loop() -> None:
    """Connections need a running event loop."""


@pytest.mark.parametrize("chunk", SIZES.values(), ids=SIZES)
async def test_chunks_of_one_read_are_read_in_turns_over_all_connections(chunk: bytes) -> None:
    wires = [Wire() for _ in range(int(WORK_PER_TURN) + 3)]
    for wire in wires:
        wire.connection._server.turns = wires[0].server.turns
        wire.receive(HEAD + chunk * COUNT + b"0\r\n\r\n", turns=False)
        assert len(wire.seen[0].body) == MAX_CHUNKS_PER_FEED
        assert wire.transport.is_paused, "nothing more is read meanwhile"
    counts = [MAX_CHUNKS_PER_FEED] * len(wires)
    while sum(counts) < COUNT * len(wires):
        await asyncio.sleep(0)
        before, counts = counts, [len(wire.seen[0].body) for wire in wires]
        assert sum(counts) - sum(before) <= WORK_PER_TURN * MAX_CHUNKS_PER_FEED
        assert max(counts) - min(counts) <= 2 * MAX_CHUNKS_PER_FEED, "each has its turn"
    assert all(wire.transport.written == b"A" and not wire.transport.is_paused for wire in wires)


async def test_what_comes_behind_such_a_body_is_the_next_request() -> None:
    wire = Wire()
    body = SIZES["usual"] * COUNT + b"0\r\nT: 1\r\n\r\n"
    following = b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    wire.receive((HEAD + body + following) * 2 + HEAD + body[:-30])
    wire.receive(body[-30:])
    wire.receive(following)
    first = ("POST", "/1", b"x" * COUNT, True)
    assert wire.summary() == [first, ("GET", "/2", b"", True)] * 3
    assert wire.transport.written == b"A" * 6
    assert not wire.transport.is_over


async def test_sink_that_takes_no_more_is_given_no_more() -> None:
    """Whether it says so when it is given a piece, or between two."""
    wire = Wire(holds=True)
    wire.receive(HEAD + SIZES["usual"] * COUNT + b"0\r\n\r\n")
    (seen,) = wire.seen
    wire.connection.read_body(seen)
    seen_at = [len(seen.body)]
    for _ in range(3):
        wire.connection.pause_body()
        wire.receive(b"")
        assert len(seen.body) == seen_at[-1]
        assert wire.transport.is_paused
        seen.pauses = True
        wire.connection.resume_body()
        wire.receive(b"")
        assert len(seen.body) == seen_at[-1] + MAX_CHUNKS_PER_FEED, "it was paused again"
        assert wire.transport.is_paused
        seen_at.append(len(seen.body))
        seen.pauses = False
    wire.connection.resume_body()
    wire.receive(b"")
    assert (len(seen.body), seen.is_complete) == (COUNT, True)
    assert not wire.transport.is_paused


async def test_client_that_is_gone_meanwhile_ends_the_body() -> None:
    wire = Wire(holds=True)
    wire.receive(HEAD + SIZES["usual"] * COUNT + b"0\r\n\r\n")
    (seen,) = wire.seen
    wire.connection.read_body(seen)
    wire.connection.connection_lost(None)
    wire.receive(b"")
    assert (len(seen.body), seen.is_complete) == (MAX_CHUNKS_PER_FEED, False)
    assert seen.error is not None
    assert not wire.transport.written


async def test_client_that_has_sent_all_and_closed_its_side_gets_its_response() -> None:
    wire = Wire(holds=True)
    wire.receive(HEAD + SIZES["usual"] * COUNT + b"0\r\n\r\n")
    (seen,) = wire.seen
    assert wire.connection.eof_received()
    wire.connection.read_body(seen)
    wire.receive(b"")
    assert (len(seen.body), seen.is_complete) == (COUNT, True)
    assert wire.transport.written == b"A"


async def test_body_that_breaks_later_is_refused_and_nothing_behind_it_is_a_request() -> None:
    wire = Wire()
    behind = b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    wire.receive(HEAD + SIZES["usual"] * COUNT + b"x\r\n" + behind)
    (seen,) = wire.seen
    assert seen.error is not None
    assert wire.transport.has_ended
    assert not wire.transport.is_paused, "what still comes is read, and thrown away"


async def test_body_without_a_reader_is_not_read_to_its_end() -> None:
    wire = Wire(holds=True)
    wire.receive(HEAD + SIZES["usual"] * COUNT + b"0\r\n\r\n")
    respond(wire.connection, wire.seen[0].request)
    assert wire.transport.has_ended, "the connection serves no other request"


async def test_sink_that_gives_up_is_given_nothing_more() -> None:
    class Impatient(Seen):
        def take(self, piece: bytes) -> None:
            super().take(piece)
            respond(self.connection, self.request)

    wire = Wire(holds=True)
    wire.receive(HEAD + SIZES["usual"] * COUNT + b"0\r\n\r\n")
    sink = Impatient(wire.connection, wire.seen[0].request)
    wire.connection.read_body(sink)
    wire.receive(b"")
    assert len(sink.body) == MAX_CHUNKS_PER_FEED
    assert wire.transport.has_ended
    assert not wire.transport.is_paused
