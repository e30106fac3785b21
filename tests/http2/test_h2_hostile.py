"""Hostile clients of HTTP/2, frame by frame: each ends its stream, or its connection, with the
right code, is counted by reason, and costs no more than a bound.

The frames are made by hyperframe and hpack, so that they may be wrong.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from support.clients.h2_raw import (
    CALM,
    CANCEL,
    FLOW,
    GET,
    PROTOCOL,
    RawH2Client,
    goaway_code,
    raw_frame,
)
from support.deadlines import until, within
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.downstream.h2_intake import MAX_PIECE_BYTES
from gateway.downstream.h2_limits import RefusedStreams


async def errors_of(gateway: RunningGateway) -> dict[str, float]:
    """The counts by reason that are not zero."""
    counts = gateway.gateway.metrics.data_plane.h2.errors
    return {cause: count for cause, count in counts.items() if count}


def resets(attacker: RawH2Client) -> Iterator[Frame]:
    for stream in range(1, 2**31, 2):
        yield attacker.head(stream)
        yield RstStreamFrame(stream, error_code=CANCEL)


def made_resets(attacker: RawH2Client) -> Iterator[Frame]:
    """MadeYouReset (CVE-2025-8671): a window that overflows makes the server reset."""
    for stream in range(1, 2**31, 2):
        yield attacker.head(stream, ends=False)
        yield WindowUpdateFrame(stream, window_increment=2**31 - 1)


def malformed_heads(attacker: RawH2Client) -> Iterator[Frame]:
    for stream in range(1, 2**31, 2):
        yield attacker.head(stream, [*GET, ("connection", "close")])


def pings(attacker: RawH2Client) -> Iterator[Frame]:
    while True:
        yield PingFrame(0, opaque_data=b"12345678")


def settings(attacker: RawH2Client) -> Iterator[Frame]:
    while True:
        yield SettingsFrame(0, settings={4: 65_535})


def window_dribble(attacker: RawH2Client) -> Iterator[Frame]:
    while True:
        yield WindowUpdateFrame(0, window_increment=1)


def priorities(attacker: RawH2Client) -> Iterator[Frame]:
    while True:
        yield PriorityFrame(1, depends_on=0, stream_weight=1)


def unknown_frames(attacker: RawH2Client) -> Iterator[bytes]:
    while True:
        yield b"\0\0\1\x42\0\0\0\0\0x"


def empty_data(attacker: RawH2Client) -> Iterator[Frame]:
    yield attacker.head(1, ends=False)
    while True:
        yield DataFrame(1, data=b"")


def data_of_a_closed_stream(attacker: RawH2Client) -> Iterator[Frame | bytes]:
    """The gateway has responded, and waits for no more of the body."""
    yield attacker.head(1, [*GET[:3], (":path", "/none"), ("content-length", "9")], ends=False)
    empty = raw_frame(0, 0, 1, b"") * 100
    while True:
        yield empty


def unread_bytes_between_pings(attacker: RawH2Client) -> Iterator[Frame | bytes]:
    yield attacker.head(1, [*GET[:3], (":path", "/none"), ("content-length", "9")], ends=False)
    empty = raw_frame(0, 0, 1, b"") * 1000 + raw_frame(6, 0, 0, b"12345678")
    while True:
        yield empty


def continuations(attacker: RawH2Client) -> Iterator[Frame]:
    yield HeadersFrame(1, data=attacker.encoder.encode(GET))
    while True:
        yield ContinuationFrame(1, data=attacker.encoder.encode([("x-field", "x" * 100)]))


def empty_continuations(attacker: RawH2Client) -> Iterator[Frame]:
    yield HeadersFrame(1, data=attacker.encoder.encode(GET))
    while True:
        yield ContinuationFrame(1, data=b"")


def hpack_bomb(attacker: RawH2Client) -> Iterator[Frame]:
    """One large entry of the table, then references to it of a byte each."""
    block = attacker.encoder.encode([*GET, ("x-bomb", "a" * 4000)])
    yield HeadersFrame(1, flags={"END_HEADERS", "END_STREAM"}, data=block + b"\xbe" * 10_000)


def crumb_bomb(attacker: RawH2Client) -> Iterator[Frame]:
    block = attacker.encoder.encode([*GET, ("cookie", "a=b")], huffman=False)
    yield HeadersFrame(1, flags={"END_HEADERS", "END_STREAM"}, data=block + b"\xbe" * 10_000)


@pytest.mark.parametrize(
    ("attack", "causes", "codes"),
    [
        (resets, {"resets"}, {CALM}),
        (made_resets, {"resets", "flood", "protocol"}, {CALM, FLOW}),
        (malformed_heads, {"resets", "flood"}, {CALM}),
        (pings, {"control_frames", "flood"}, {CALM}),
        (settings, {"control_frames", "flood"}, {CALM}),
        (window_dribble, {"control_frames"}, {CALM}),
        (priorities, {"flood", "protocol"}, {CALM, PROTOCOL}),
        (unknown_frames, {"flood"}, {CALM}),
        (empty_data, {"flood"}, {CALM}),
        (data_of_a_closed_stream, {"flood"}, {CALM}),
        (unread_bytes_between_pings, {"flood"}, {CALM}),
        (continuations, {"flood"}, {CALM}),
        (empty_continuations, {"flood"}, {CALM}),
        (hpack_bomb, {"flood"}, {CALM}),
        (crumb_bomb, {"flood"}, {CALM}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_flood_ends_its_connection(
    gateway: RunningGateway,
    attacker: RawH2Client,
    attack: Callable[[RawH2Client], Iterator[Frame | bytes]],
    causes: set[str],
    codes: set[int],
) -> None:
    seen = asyncio.create_task(attacker.frames())
    async with within():
        await attacker.flood(attack(attacker))
    code = goaway_code(await seen)
    assert code in codes
    assert causes & set(await errors_of(gateway))
    # Nothing of it is left, and everything is accounted for.
    await attacker.close()
    await until(lambda: gateway.gateway.metrics.data_plane.inflight_requests == 0)
    await until(lambda: gateway.gateway.metrics.data_plane.h2.connections == 0)
    assert (await gateway.send(b"GET /public HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_what_came_with_the_reset_too_many_is_counted_as_nothing_else(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"http2": {"max_resets": 10}})
    client = await RawH2Client.connect(gateway.port)
    client.send(*itertools.islice(resets(client), 800))
    assert goaway_code(await client.frames()) == CALM
    await client.close()
    await until(lambda: gateway.gateway.metrics.data_plane.h2.connections == 0)
    assert await errors_of(gateway) == {"resets": 1}
    assert gateway.gateway.metrics.data_plane.h2.resets["client"] == 11


async def test_as_many_resets_as_a_piece_can_hold_are_no_error_of_the_gateway(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"http2": {"max_resets": 10}})
    counts = gateway.gateway.metrics.data_plane
    client = await RawH2Client.connect(gateway.port)
    post = [(":method", "POST"), *GET[1:]]
    client.send(*(client.head(2 * at + 1, post, ends=False) for at in range(90)))
    await until(lambda: counts.inflight_requests == 90)
    frames = [RstStreamFrame(2 * at + 1, error_code=CANCEL) for at in range(90)]
    client.send(*frames[:10])
    await until(lambda: counts.h2.resets["client"] == 10)
    # A piece ends within the first of the others.
    fill = DataFrame(179, bytes(MAX_PIECE_BYTES - 9 - 5))
    client.send(fill, *frames[10:-1])
    ends = [frame for frame in await client.frames() if isinstance(frame, GoAwayFrame)]
    assert [int(frame.error_code) for frame in ends] == [CALM]
    await client.close()


async def test_streams_refused_before_settings_are_acknowledged_are_paid_for(
    start: StartGateway, upstream: RawUpstream
) -> None:
    """The engine refuses them by itself, and counts none of them."""
    gateway = await start(
        upstream.url, listen={"http2": {"max_concurrent_streams": 1, "max_resets": 50}}
    )
    client = await RawH2Client.connect(gateway.port)
    post = [(":method", "POST"), *GET[1:]]
    await client.flood(client.head(2 * at + 1, post, ends=False) for at in range(5000))
    assert goaway_code(await client.frames()) == CALM
    errors = gateway.gateway.metrics.data_plane.h2.errors
    assert errors["resets"] == 1
    assert 50 <= errors["streams"] < 5000
    await client.close()


def test_refusals_are_found_however_the_frames_are_cut() -> None:
    sent = b"".join(
        (
            raw_frame(0, 0, 1, bytes(100)), raw_frame(3, 0, 5, (7).to_bytes(4)),
            raw_frame(3, 0, 7, (8).to_bytes(4)), raw_frame(4, 1, 0, b""),
            raw_frame(3, 0, 9, (7).to_bytes(4)),
        )
    )  # fmt: skip
    for size in range(1, len(sent) + 1):
        reader = RefusedStreams()
        pieces = (sent[at : at + size] for at in range(0, len(sent), size))
        assert [one for piece in pieces for one in reader.read(piece)] == [5, 9]


async def test_client_reads_what_came_before_it_was_reset() -> None:
    """As a flood does whose connection the gateway has closed: the GOAWAY frame is there."""
    is_read = asyncio.Event()

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = SettingsFrame(0), GoAwayFrame(0, error_code=CALM)
        writer.write(b"".join(one.serialize() for one in frames))
        await is_read.wait()
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        client = await RawH2Client.connect(server.sockets[0].getsockname()[1])
        await client.frame(SettingsFrame)
        is_read.set()
        await client.flood(itertools.repeat(PingFrame(0)))
        assert goaway_code(await client.frames()) == CALM
        await client.close()
