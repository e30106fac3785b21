"""What clients of HTTP/2 send at once is worked off in turns of the loop, over all connections."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os

import pytest
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from support.clients.h2_raw import CANCEL, GET, PREFACE, RawH2Client, raw_frame
from support.deadlines import until, within
from support.running_gateway import RunningGateway
from support.turns import count_received, most_in_a_turn
from support.wire import Wire

from gateway.downstream.h2 import MAX_LINGER_BYTES, H2Connection
from gateway.downstream.h2_intake import (
    BYTES_PER_REQUEST,
    FRAMES_PER_PIECE,
    FRAMES_PER_REQUEST,
    MAX_PIECE_BYTES,
    REQUESTS_PER_PIECE,
    H2Intake,
)
from gateway.downstream.h2_limits import H2Settings
from gateway.downstream.h2_stream import HIGH_WATER_BYTES, H2Stream
from gateway.downstream.turns import H2_WORK, MUCH_BYTES, PIECE_BYTES, WORK_PER_TURN, Turns
from gateway.http.errors import ProblemError
from gateway.http.fields import Trailers
from gateway.http.h2 import H2Error
from gateway.http.response_head import ResponseHead

MIB = 1024 * 1024
SETTINGS = H2Settings(100, 2**20, 2**24, 0, 100)
POST = [(":method", "POST"), *GET[1:]]


@pytest.mark.parametrize("connections", [1, 5])
async def test_requests_that_came_at_once_leave_turns_of_the_loop_to_others(
    gateway: RunningGateway, connections: int
) -> None:
    """However many connections they came on."""
    counts = gateway.gateway.metrics.data_plane.h2.resets
    attackers = [await RawH2Client.connect(gateway.port) for _ in range(connections)]
    for attacker in attackers:
        attacker.send(*(
            frame
            for stream in range(1, 1200 // connections, 2)
            for frame in (attacker.head(stream), RstStreamFrame(stream, error_code=CANCEL))
        ))  # fmt: skip
    most = await most_in_a_turn(lambda: counts["client"], 590)
    # In one turn, what has just come may be begun, and what waits in line.
    assert most <= 2 * (WORK_PER_TURN + REQUESTS_PER_PIECE)
    for attacker in attackers:
        await attacker.close()


@pytest.mark.skipif("TEST_COMPILED" in os.environ, reason="what is compiled is not counted so")
async def test_small_pieces_of_a_body_leave_turns_of_the_loop_to_others(
    gateway: RunningGateway, attacker: RawH2Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = count_received(monkeypatch, H2Stream, "receive")
    pieces = 20_000
    attacker.send(
        attacker.head(1, [(":method", "POST"), *GET[1:]], ends=False),
        raw_frame(0, 0, 1, b"x") * pieces,
    )
    most = await most_in_a_turn(received, pieces)
    # In one turn, what has just come may be read, and what waits in line.
    assert most <= 2 * (WORK_PER_TURN * FRAMES_PER_REQUEST + FRAMES_PER_PIECE)


async def test_connections_that_begin_at_once_leave_turns_of_the_loop_to_others(
    gateway: RunningGateway,
) -> None:
    """Each is served, with all that came with its preface, in one read or several."""
    counts = gateway.gateway.metrics.data_plane.h2
    clients = [
        RawH2Client(*await asyncio.open_connection("127.0.0.1", gateway.port)) for _ in range(20)
    ]
    body = bytes(3 * PIECE_BYTES)
    for client in clients:
        client.send(
            PREFACE, SettingsFrame(0), client.head(1, POST, ends=False), DataFrame(1, body[:16384]),
            DataFrame(1, body[16384:32768]), DataFrame(1, body[32768:], flags=["END_STREAM"]),
        )  # fmt: skip
    most = await most_in_a_turn(lambda: counts.connections, len(clients))
    assert most <= 2 * (WORK_PER_TURN // H2_WORK + 1)
    for client in clients:
        head = await client.frame(HeadersFrame)
        assert isinstance(head, HeadersFrame)
        assert client.status_of(head) == 200
        await client.close()


async def test_connection_begins_when_its_turn_has_come() -> None:
    """Five clients that pipeline take just the work of a turn that came before its own."""
    wires = [Wire() for _ in range(int(WORK_PER_TURN))]
    turns = wires[0].server.turns
    for wire in wires:
        wire.connection._server.turns = turns
    for wire in wires[1:]:
        wire.receive(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n" * 100, turns=False)
    wires[0].server.http2 = SETTINGS
    protocols: list[asyncio.Protocol] = []
    wires[0].transport.set_protocol = protocols.append  # type: ignore[attr-defined]
    turns.spend(WORK_PER_TURN)
    wires[0].receive(PREFACE + frames_of(SettingsFrame(0)), turns=False)
    assert not protocols, "it waits"
    assert not wires[0].connection._deadline.is_set, "as a client that is slow"
    for _ in range(2):
        turns._take_turn()
    assert protocols
    assert len(wires[1].seen) < 5
    protocols[0].connection_lost(None)


async def test_client_that_leaves_before_its_turn_begins_no_connection(
    gateway: RunningGateway,
) -> None:
    counts = gateway.gateway.metrics.data_plane
    clients = [
        RawH2Client(*await asyncio.open_connection("127.0.0.1", gateway.port)) for _ in range(20)
    ]
    for client in clients:
        client.send(PREFACE, SettingsFrame(0), client.head(1))
        client.writer.write_eof()
    async with within():
        for client in clients:
            with contextlib.suppress(ConnectionError):
                while await client.reader.read(65536):
                    pass
            await client.close()
    await until(lambda: counts.h2.connections == 0)
    await until(lambda: counts.inflight_requests == 0)


def begin(wire: Wire, *sent: Frame | bytes) -> H2Connection:
    """The connection of a client that speaks HTTP/2, and has sent this after its preface."""
    protocols: list[asyncio.Protocol] = []
    wire.server.http2 = SETTINGS
    wire.transport.set_protocol = protocols.append  # type: ignore[attr-defined]
    wire.receive(frames_of(PREFACE, *sent))
    (connection,) = protocols
    assert isinstance(connection, H2Connection)
    return connection


class _Body(bytearray):
    """Keeps the body of a request."""

    is_late = False

    def take(self, piece: bytes) -> None:
        self.extend(piece)

    def end_of_body(self, trailers: Trailers = ()) -> None:
        pass

    def body_failed(self, error: ProblemError) -> None:
        self.is_late = error.reason == "client_body_timeout"


async def test_body_that_waits_for_its_turn_is_not_late() -> None:
    wire = Wire(holds=True)
    head = HeadersFrame(1, data=Encoder().encode(POST), flags=["END_HEADERS"])
    connection = begin(wire, SettingsFrame(0), head, DataFrame(1, b"early, "))
    body = _Body()
    stream = connection._channel.streams[1]
    stream.read_body(body)
    wire.server.turns.spend(WORK_PER_TURN)  # by others
    connection.data_received(frames_of(DataFrame(1, b"waiting, ")))
    stream.expire_body()
    assert (bytes(body), body.is_late) == (b"early, ", False)
    wire.receive(b"")
    assert body == b"early, waiting, "
    stream.expire_body()
    assert body.is_late, "what should have come next"
    connection.connection_lost(None)


async def test_connection_whose_request_waits_for_its_turn_is_not_idle() -> None:
    wire = Wire(holds=True)
    connection = begin(wire, SettingsFrame(0))
    wire.server.turns.spend(WORK_PER_TURN)  # by others
    head = HeadersFrame(1, data=Encoder().encode(GET), flags=["END_HEADERS", "END_STREAM"])
    connection.data_received(frames_of(head))
    connection._expire()
    assert not wire.transport.is_over
    assert connection._deadline.is_set
    wire.receive(b"")
    assert [seen.request.method for seen in wire.seen] == ["GET"]
    connection.connection_lost(None)


async def test_what_comes_after_goaway_is_thrown_away_with_pauses() -> None:
    wire = Wire()
    overflow = WindowUpdateFrame(0, window_increment=2**31 - 1)
    connection = begin(wire, SettingsFrame(0), overflow, overflow)
    assert wire.transport.has_ended, "with GOAWAY"
    connection.data_received(bytes(MUCH_BYTES + 1))
    assert (wire.transport.pauses, wire.transport.is_paused) == (1, True)
    await until(lambda: not wire.transport.is_paused)
    assert wire.transport.pauses == 1
    connection.data_received(bytes(MAX_LINGER_BYTES))
    assert wire.transport.is_closed, "it does not end"
    connection.connection_lost(None)


async def test_client_that_has_sent_much_when_it_is_ended_is_read_after_a_pause() -> None:
    wire = Wire()
    overflow = WindowUpdateFrame(0, window_increment=2**31 - 1)
    much = raw_frame(0, 0, 1, b"x") * MUCH_BYTES
    connection = begin(wire, SettingsFrame(0), overflow, overflow, much)
    assert wire.transport.has_ended, "with GOAWAY"
    assert wire.transport.is_paused
    await until(lambda: not wire.transport.is_paused)
    connection.connection_lost(None)


async def test_responses_that_stall_together_end_in_turns_of_the_loop() -> None:
    wire = Wire(holds=True)
    encoder, count = Encoder(), 40
    connection = begin(
        wire,
        SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}),
        *(
            HeadersFrame(1 + 2 * at, data=encoder.encode(GET), flags=["END_HEADERS", "END_STREAM"])
            for at in range(count)
        ),
    )
    streams = list(connection._channel.streams.values())
    for stream in streams:
        stream.respond(ResponseHead(200, b""), None)
        stream.send(bytes(HIGH_WATER_BYTES))
        stream.flush()
    connection._flush()
    for stream in streams:
        assert stream._write_deadline is not None
        stream._write_deadline.expire()
    errors, seen = wire.server.h2_counts.errors, [0]
    while wire.server.turns._waiting:
        wire.server.turns._take_turn()
        seen.append(errors["stalled"])
    assert seen[-1] == count
    assert max(after - before for before, after in itertools.pairwise(seen)) <= WORK_PER_TURN
    connection.connection_lost(None)


async def test_response_that_is_taken_while_its_end_is_due_does_not_end() -> None:
    wire = Wire(holds=True)
    head = HeadersFrame(1, data=Encoder().encode(GET), flags=["END_HEADERS", "END_STREAM"])
    connection = begin(wire, SettingsFrame(0), head)
    stream = connection._channel.streams[1]

    def is_paused() -> bool:
        return stream.is_write_paused

    stream.respond(ResponseHead(200, b""), None)
    stream.send(bytes(2 * HIGH_WATER_BYTES))
    stream.flush()
    connection._flush()
    assert is_paused()
    assert stream._write_deadline is not None
    stream._write_deadline.expire()
    more = WindowUpdateFrame(1, window_increment=MIB), WindowUpdateFrame(0, window_increment=MIB)
    connection.data_received(frames_of(*more))
    assert not is_paused()
    stream.send(bytes(2 * MIB))
    stream.flush()
    connection._flush()
    assert is_paused(), "again, which is another matter"
    wire.receive(b"")
    assert wire.server.h2_counts.errors["stalled"] == 0
    connection.connection_lost(None)


class _Engine:
    """Keeps the pieces that it is given."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.fails = False
        self.is_defective = False

    def receive(self, data: bytes) -> int:
        self.pieces.append(data)
        if self.is_defective:
            raise RuntimeError("a defect")
        if self.fails:
            raise H2Error(0, "as wanted")
        return 1


class _Transport:
    """Notes whether it is read."""

    is_read = True
    is_closed = False

    def abort(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        assert self.is_read
        self.is_read = False

    def resume_reading(self) -> None:
        assert not self.is_read
        self.is_read = True

    def is_closing(self) -> bool:
        return self.is_closed


class Intake:
    """An intake, with what is before and behind it."""

    def __init__(self, turns: Turns) -> None:
        self.engine, self.transport = _Engine(), _Transport()
        self.turns = turns
        self.intake = H2Intake(
            asyncio.get_running_loop(), self.engine, self.receive, turns,  # type: ignore[arg-type]
            settings=SETTINGS, scale=1,
        )  # fmt: skip
        self.intake.transport = self.transport  # type: ignore[assignment]

    def receive(self, data: bytes) -> None:
        self.intake.give(data)

    def take_turn(self) -> list[bytes]:
        """Let those in line have a turn; returns the pieces that this one gave on."""
        before = len(self.engine.pieces)
        self.turns._take_turn()
        return self.engine.pieces[before:]


def frames_of(*parts: Frame | bytes) -> bytes:
    return b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)


pure = pytest.mark.skipif("TEST_COMPILED" in os.environ, reason="takes no engine but the real one")


@pure
@pytest.mark.parametrize("at_once", [1, 7, 4096, 10**6])
async def test_pieces_end_behind_a_few_requests_however_the_bytes_come(at_once: int) -> None:
    one = Intake(Turns())
    pair = frames_of(HeadersFrame(1, data=b"head"), RstStreamFrame(1, error_code=CANCEL))
    large = frames_of(DataFrame(1, bytes(16384)))
    data = PREFACE + frames_of(SettingsFrame(0)) + pair * 50 + large * 20 + pair * 50
    for at in range(0, len(data), at_once):
        one.receive(data[at : at + at_once])
        while one.turns._waiting:
            one.take_turn()
    assert b"".join(one.engine.pieces) == data
    assert max(piece.count(b"head") for piece in one.engine.pieces) <= REQUESTS_PER_PIECE
    assert max(map(len, one.engine.pieces)) <= MAX_PIECE_BYTES
    assert one.transport.is_read
    assert not one.intake._pieces.size, "an idle connection keeps what it has read"


@pure
async def test_each_connection_has_its_turn_and_is_not_read_while_it_has_sent_much() -> None:
    turns = Turns()
    many = [Intake(turns) for _ in range(6)]
    data = PREFACE + frames_of(HeadersFrame(1, data=b"head")) * 2000
    for one in many:
        one.receive(data)
        assert not one.transport.is_read
    begun = [b"".join(one.engine.pieces).count(b"head") for one in many]
    assert WORK_PER_TURN <= sum(begun) <= WORK_PER_TURN + REQUESTS_PER_PIECE
    for _ in range(60):
        before = sum(len(one.engine.pieces) for one in many)
        turns._take_turn()
        taken = sum(len(one.engine.pieces) for one in many) - before
        assert 0 < taken * REQUESTS_PER_PIECE <= WORK_PER_TURN + REQUESTS_PER_PIECE
    begun = [b"".join(one.engine.pieces).count(b"head") for one in many]
    assert max(begun) - min(begun) <= WORK_PER_TURN + REQUESTS_PER_PIECE
    many[0].intake.stop()
    assert many[0].transport.is_read, "what still comes is read, and thrown away"
    assert not many[0].take_turn()


@pure
async def test_defect_ends_the_connection_whose_turn_it_is() -> None:
    """What is left would be for streams some of whose events are lost."""
    one, other = [Intake(turns) for turns in [Turns()] * 2]
    data = PREFACE + frames_of(HeadersFrame(1, data=b"head")) * 2000
    for each in (one, other):
        each.receive(data)
    one.engine.is_defective = True
    with pytest.raises(RuntimeError):
        one.take_turn()
    assert one.transport.is_closed
    given = len(one.engine.pieces)
    assert other.take_turn(), "it does not wait for ever"
    one.receive(frames_of(SettingsFrame(0)))
    one.turns._take_turn()
    assert len(one.engine.pieces) == given


@pure
async def test_body_of_one_client_is_not_cut_short_by_turns() -> None:
    """An upload that has the loop for itself has all of each turn."""
    one = Intake(Turns())
    frame = frames_of(DataFrame(1, bytes(16384)))
    one.receive(PREFACE + frame * 16)
    sizes = [sum(map(len, one.engine.pieces))]
    while one.turns._waiting:
        sizes.append(sum(map(len, one.take_turn())))
    assert sizes[0] > 2 * BYTES_PER_REQUEST
    assert sum(sizes) == len(PREFACE) + len(frame) * 16
