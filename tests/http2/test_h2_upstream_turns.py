"""What an upstream of HTTP/2 sends at once is worked off in turns of the loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hpack import Encoder
from http2.conftest import fetch, upstream_of
from http2.test_h2_protocols import server_context
from hyperframe.frame import Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame
from support.clients.h2_raw import raw_frame
from support.deadlines import until, within
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream
from support.turns import count_received, most_in_a_turn

from fuzz.transport import Transport
from gateway.http.errors import UpstreamError
from gateway.http.fields import Trailers
from gateway.http.response_head import ResponseHead
from gateway.upstream.h2 import MultiplexedConnection
from gateway.upstream.h2_intake import FRAMES_PER_PIECE
from gateway.upstream.h2_limits import STREAM_WINDOW
from gateway.upstream.h2_stream import MultiplexedStream
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import ResponseSink, UpstreamRequestHead

pure = pytest.mark.skipif(
    "TEST_COMPILED" in os.environ, reason="compiled classes have no such subclass or method"
)
COUNT = 20_000
HEAD = HeadersFrame(1, data=Encoder().encode([(":status", "200")]), flags=["END_HEADERS"])
PIECE, END = raw_frame(0, 0, 1, b"x"), raw_frame(0, 1, 1, b"")


def response(stream: int = 1) -> bytes:
    head = HeadersFrame(stream, data=HEAD.data, flags=["END_HEADERS"]).serialize()
    return head + raw_frame(0, 0, stream, b"x") * COUNT + raw_frame(0, 1, stream, b"")


@pure
async def test_small_pieces_of_a_response_leave_turns_of_the_loop_to_others(
    start: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = count_received(monkeypatch, MultiplexedStream, "receive_body")
    async with H2Upstream(
        on_end=lambda request: request.connection.send_raw(response())
    ) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        fetching = asyncio.create_task(fetch(gateway))
        most = await most_in_a_turn(received, COUNT)
        async with within():
            assert await fetching == (200, b"x" * COUNT)
    # In one turn, the last of a read may be worked off, and what has just come.
    assert most <= 2 * FRAMES_PER_PIECE


@pytest.mark.parametrize("is_secure", [False, True])
async def test_response_is_whole_though_its_connection_is_closed_meanwhile(
    start: StartGateway, tmp_path: Path, is_secure: bool
) -> None:
    """Also where the upstream does not wait for the gateway's goodbye."""
    held: list[H2Request] = []

    async def respond(transport: asyncio.Transport) -> None:
        for one in held:
            one.connection.send_raw(response(one.stream_id))
        await until(lambda: not transport.get_write_buffer_size())
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as wire:
            wire.shutdown(socket.SHUT_WR)

    tls = server_context(tmp_path, "h2") if is_secure else None
    async with H2Upstream(on_end=held.append, tls=tls) as upstream:
        main = upstream_of(upstream.url, tls={"verify": False} if is_secure else {})
        gateway = await start("", upstreams=main)
        fetching = [asyncio.create_task(fetch(gateway)) for _ in range(5)]
        await until(lambda: len(held) == 5)
        assert held[0].connection.transport is not None
        await respond(held[0].connection.transport)
        assert await asyncio.gather(*fetching) == [(200, b"x" * COUNT)] * 5


class Response(ResponseSink):
    """Keeps a response."""

    def __init__(self) -> None:
        self.body_bytes = 0
        self.is_complete = False
        self.reasons: list[str] = []
        """Why it failed."""

    def head(self, head: ResponseHead) -> None:
        pass

    def body(self, piece: bytes) -> None:
        self.body_bytes += len(piece)

    def end(self, trailers: Trailers = ()) -> None:
        self.is_complete = True

    def failed(self, error: UpstreamError) -> None:
        self.reasons.append(error.reason)


class Exchange:
    """A request on a connection of its own."""

    def __init__(self, response: Response | None = None) -> None:
        self.lost: list[MultiplexedConnection] = []
        self.transport, self.response = Transport(), response or Response()
        self.connection = MultiplexedConnection(
            asyncio.get_running_loop(),
            UpstreamTimeouts(),
            scheme=b"http",
            on_lost=self.lost.append,
            on_changed=lambda one: None,
        )
        wire: Any = self.transport
        self.connection.attach(wire)
        self.request(self.response)

    def request(self, response: ResponseSink) -> None:
        """Send one more."""
        head = UpstreamRequestHead(b"GET /a HTTP/1.1\r\n", b"h", b"", method="GET")
        self.connection.open(response).send_request(head, ends=True)

    async def receive(self, *frames: Frame | bytes) -> None:
        """Receive them, behind what came before, when the request was written."""
        await asyncio.sleep(0)
        self.connection.receive(
            b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames)
        )


async def turns(count: int = 2 * COUNT // FRAMES_PER_PIECE) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pure
async def test_frames_of_one_read_are_read_in_turns_and_in_order() -> None:
    one = Exchange()
    await one.receive(SettingsFrame(0), HEAD, PIECE * COUNT)
    begun = FRAMES_PER_PIECE - 2
    while one.response.body_bytes < COUNT:
        assert one.response.body_bytes == begun
        assert one.transport.is_paused, "nothing more is read meanwhile"
        begun = min(begun + FRAMES_PER_PIECE, COUNT)
        if begun == 3 * FRAMES_PER_PIECE - 2:  # where the transport had read on
            one.connection.receive(PIECE + END)
        await asyncio.sleep(0)
    await turns(2)
    assert (one.response.body_bytes, one.response.is_complete) == (COUNT + 1, True)
    assert (one.transport.pauses, one.transport.is_paused) == (1, False)


@pure
@pytest.mark.parametrize(
    ("end", "reasons"),
    [
        (END, []),
        (RstStreamFrame(1, error_code=7).serialize(), ["upstream_reset"]),
        (b"", ["upstream_closed"]),
    ],
    ids=["its end", "a reset", "nothing"],
)
async def test_what_came_before_the_connection_was_lost_is_read(
    end: bytes, reasons: list[str]
) -> None:
    one = Exchange()
    await one.receive(SettingsFrame(0), HEAD, PIECE * COUNT, end)
    one.transport.is_closed = True
    one.connection.lost()
    assert not one.connection.has_room
    assert not one.response.reasons
    await turns()
    assert one.response.body_bytes == COUNT
    assert one.response.is_complete == (end == END)
    assert one.lost == [one.connection]
    assert one.connection.stream_count == 0
    assert one.response.reasons == reasons


class _Failing(Response):
    """Has a defect: raises when it is called so."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def body(self, piece: bytes) -> None:
        super().body(piece)
        if self._at == "body" and self.body_bytes > FRAMES_PER_PIECE:
            raise RuntimeError("a defect")

    def flush(self) -> None:
        if self._at == "flush" and self.body_bytes > FRAMES_PER_PIECE:
            raise RuntimeError("a defect")

    def failed(self, error: UpstreamError) -> None:
        super().failed(error)
        if self._at == "failed":
            raise RuntimeError("a defect")


@pure
@pytest.mark.parametrize("is_lost", [False, True], ids=["open", "lost"])
@pytest.mark.parametrize("at", ["body", "flush", "failed"])
async def test_defect_ends_the_connection_and_every_stream_of_it(
    at: str, is_lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    failing, neighbour = _Failing(at), Response()
    one = Exchange(failing)
    one.request(neighbour)
    head = HeadersFrame(3, data=HEAD.data, flags=["END_HEADERS"])
    await one.receive(SettingsFrame(0), HEAD, head, (PIECE + raw_frame(0, 0, 3, b"x")) * COUNT)
    if is_lost:
        one.connection.lost()
    await turns(1 if at == "failed" and not is_lost else 4 * COUNT // FRAMES_PER_PIECE)
    if not is_lost:
        if at == "failed":
            one.connection.abort()
        assert one.transport.is_closed
        one.connection.receive(raw_frame(0, 1, 3, b""))
        one.connection.lost()
        await turns(2)
    assert neighbour.reasons == ["upstream_closed"]
    assert not neighbour.is_complete
    assert failing.reasons == ["upstream_closed"]
    assert one.connection.stream_count == 0
    assert one.lost == [one.connection]
    assert caplog.text.count("RuntimeError: a defect") == 1


def abort(connection: MultiplexedConnection) -> None:
    connection.abort()


def break_off(connection: MultiplexedConnection) -> None:
    connection.receive(b"")
    for stream in tuple(connection._streams.values()):
        stream.cancel()


@pure
@pytest.mark.parametrize("leave", [abort, break_off])
async def test_rest_of_a_connection_that_is_over_is_dropped(
    leave: Callable[[MultiplexedConnection], None],
) -> None:
    one = Exchange()
    await one.receive(SettingsFrame(0), HEAD, PIECE * COUNT)
    leave(one.connection)
    one.transport.is_closed = True
    one.connection.lost()
    await turns()
    assert one.response.body_bytes == FRAMES_PER_PIECE - 2
    assert one.lost == [one.connection]
    assert one.connection.stream_count == 0


@pure
async def test_large_pieces_of_a_response_are_read_at_once() -> None:
    one = Exchange()
    large = raw_frame(0, 0, 1, bytes(16_384))
    acknowledgement = SettingsFrame(0, flags=["ACK"])
    await one.receive(SettingsFrame(0), acknowledgement, HEAD, large * (STREAM_WINDOW // 16_384))
    assert one.response.body_bytes == STREAM_WINDOW
    assert not one.transport.pauses


@pure
@pytest.mark.parametrize("at_once", [1, 5, 13, 4096])
async def test_response_is_the_same_however_its_bytes_come(at_once: int) -> None:
    one = Exchange()
    await asyncio.sleep(0)
    pong = PingFrame(0, opaque_data=b"12345678").serialize()
    data = SettingsFrame(0).serialize() + HEAD.serialize() + (pong + PIECE) * 300 + END
    for at in range(0, len(data), at_once):
        one.connection.receive(data[at : at + at_once])
    await turns(5)
    assert (one.response.body_bytes, one.response.is_complete) == (300, True)
    assert not one.transport.is_paused
