"""Hostile upstreams of HTTP/2, frame by frame: each ends its own connection, and no other."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial

import aiohttp
import pytest
from h2.connection import H2Connection
from hpack import Encoder
from http2.conftest import fetch, upstream_of
from hyperframe.frame import (
    AltSvcFrame,
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
from support.clients.h2_raw import CANCEL, RawH2Client, raw_frame
from support.deadlines import until, within
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream

from gateway.http.h2_budget import CONTROL_FRAMES, IGNORED_BYTES
from gateway.upstream.h2_limits import STREAM_WINDOW

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAMES_PER_WRITE = 200
HEAD = Encoder().encode([(":status", "200")])


def pings() -> Iterator[Frame]:
    while True:
        yield PingFrame(0, opaque_data=b"12345678")


def ping_acknowledgements() -> Iterator[Frame]:
    while True:
        yield PingFrame(0, opaque_data=b"12345678", flags=["ACK"])


def goaways() -> Iterator[Frame]:
    while True:
        yield GoAwayFrame(0, last_stream_id=1, error_code=2)


def settings() -> Iterator[Frame]:
    while True:
        yield SettingsFrame(0, settings={4: 65_535})


def continuations() -> Iterator[Frame]:
    yield HeadersFrame(1, data=HEAD)
    while True:
        yield ContinuationFrame(1)


def large_head() -> Iterator[Frame]:
    yield HeadersFrame(1, data=HEAD)
    encoder = Encoder()
    for number in itertools.count():
        yield ContinuationFrame(
            1, data=encoder.encode([(f"x-{number}", "v" * 8000)], huffman=False)
        )


def empty_data() -> Iterator[Frame]:
    yield HeadersFrame(1, data=HEAD, flags=["END_HEADERS"])
    while True:
        yield DataFrame(1)


def interim_heads() -> Iterator[Frame]:
    encoder = Encoder()
    while True:
        yield HeadersFrame(1, data=encoder.encode([(":status", "103")]), flags=["END_HEADERS"])


def window_dribble() -> Iterator[Frame]:
    while True:
        yield WindowUpdateFrame(0, window_increment=1)


def priorities() -> Iterator[Frame]:
    while True:
        yield PriorityFrame(1, depends_on=0, stream_weight=1)


def unknown_frames() -> Iterator[bytes]:
    while True:
        yield raw_frame(0x42, 0, 0, b"x")


def origins() -> Iterator[bytes]:
    while True:
        yield raw_frame(0xC, 0, 0, b"\0\x11https://a.example")


def alternatives() -> Iterator[Frame]:
    while True:
        yield AltSvcFrame(0, origin=b"https://a.example", field=b'h2=":443"')


FLOODS: list[Callable[[], Iterator[Frame | bytes]]] = [
    pings, ping_acknowledgements, settings, goaways, continuations, large_head, empty_data,
    interim_heads, window_dribble, priorities, unknown_frames, origins, alternatives,
]  # fmt: skip


class Flooding:
    """An upstream that responds to its first request with frames without end."""

    def __init__(self, flood: Callable[[], Iterator[Frame | bytes]]) -> None:
        self._flood = flood
        self.connections = 0
        self.is_over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readexactly(len(PREFACE))
            writer.write(SettingsFrame(0).serialize())
            writer.write(SettingsFrame(0, flags=["ACK"]).serialize())
            await self._request(reader)
            reading = asyncio.create_task(self._ignore(reader))
            frames = self._flood()
            while not reading.done():
                block = list(itertools.islice(frames, FRAMES_PER_WRITE))
                writer.write(
                    b"".join(one if isinstance(one, bytes) else one.serialize() for one in block)
                )
                await writer.drain()
                await asyncio.sleep(0)
        self.is_over.set()
        writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> None:
        while True:
            frame, size = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
            await reader.readexactly(size)
            if isinstance(frame, HeadersFrame):
                return

    async def _ignore(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass


def empty_data_of_a_closed_stream() -> Iterator[Frame]:
    yield HeadersFrame(1, data=HEAD, flags=["END_HEADERS", "END_STREAM"])
    while True:
        yield DataFrame(1)


def data_of_a_reset_stream() -> Iterator[Frame]:
    """The gateway resets it for a head that is not valid."""
    yield HeadersFrame(1, data=Encoder().encode([(":status", "no")]), flags=["END_HEADERS"])
    while True:
        yield DataFrame(1, data=b"x")


@pytest.fixture
async def flooding(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Flooding, str]]:
    flooding = Flooding(request.param)
    server = await asyncio.start_server(flooding.serve, "127.0.0.1", 0)
    yield flooding, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def by(*floods: Callable[[], Iterator[Frame | bytes]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "flooding", floods, ids=lambda flood: flood.__name__, indirect=True
    )


@by(*FLOODS)
async def test_upstream_that_floods_loses_its_connection(
    start: StartGateway, flooding: tuple[Flooding, str]
) -> None:
    hostile, url = flooding
    async with H2Upstream(on_end=H2Request.respond) as honest:
        upstreams = upstream_of(url, retries={"attempts": 0}) | {
            "other": {"targets": [honest.url], "protocol": "http2"}
        }
        other = {"name": "o", "match": {"path": "/other"}, "upstream": "other", "auth": "none"}
        public = {"name": "p", "match": {"path": "/public"}, "upstream": "main", "auth": "none"}
        gateway = await start("", upstreams=upstreams, routes=[public, other])
        async with within():
            broken = asyncio.create_task(fetch(gateway))
            await hostile.is_over.wait()
            assert await fetch(gateway, path="/other") == (200, b"ok")
            with contextlib.suppress(aiohttp.ClientPayloadError):  # its head had come
                assert (await broken)[0] == 502
        assert hostile.connections == 1
        line = next(line for line in await gateway.logged(2) if line["route"] == "p")
        assert line["reason"] == "upstream_protocol"


@by(empty_data_of_a_closed_stream, data_of_a_reset_stream)
async def test_upstream_that_sends_on_and_on_for_streams_that_are_over_loses_its_connection(
    start: StartGateway, flooding: tuple[Flooding, str]
) -> None:
    hostile, url = flooding
    gateway = await start("", upstreams=upstream_of(url, retries={"attempts": 0}))
    async with within():
        assert (await fetch(gateway))[0] in (200, 502)
        await hostile.is_over.wait()
    assert hostile.connections == 1


async def test_what_was_under_way_when_streams_were_reset_is_no_flood(start: StartGateway) -> None:
    """A window of each, four times as much as the budget has without requests."""
    count, piece = 4 * IGNORED_BYTES // STREAM_WINDOW, bytes(16_384)
    held: list[H2Request] = []
    async with H2Upstream(on_end=held.append) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await RawH2Client.connect(gateway.port)
        streams = range(1, 2 * count, 2)
        client.send(*map(client.head, streams))
        await until(lambda: len(held) == count)
        client.send(*(RstStreamFrame(stream, error_code=CANCEL) for stream in streams))
        await until(lambda: all(request.reset_code is not None for request in held))
        for request in held:
            head = HeadersFrame(request.stream_id, data=HEAD, flags=["END_HEADERS"])
            data = DataFrame(request.stream_id, piece).serialize() * (STREAM_WINDOW // len(piece))
            request.connection.send_raw(head.serialize() + data)
        upstream.on_end = H2Request.respond
        assert await fetch(gateway) == (200, b"ok")
        assert len(upstream.connections) == 1
        await client.close()


async def arrives(
    start: StartGateway, give: Callable[[H2Request], Coroutine[None, None, None]], body: bytes
) -> None:
    """See that a response arrives whole which `give` gives in a task of its own."""
    giving: list[asyncio.Task[None]] = []
    async with H2Upstream(
        on_end=lambda request: giving.append(asyncio.create_task(give(request)))
    ) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        assert await fetch(gateway) == (200, body)
        await giving[0]


async def test_padding_is_no_flood(start: StartGateway) -> None:
    """Of DATA in small pieces, it is more than what is padded."""
    count = 3 * IGNORED_BYTES // 265

    async def give(request: H2Request) -> None:
        connection = request.connection
        request.head()
        for number in range(count):
            while connection.h2.local_flow_control_window(request.stream_id) < 257:
                connection.changed.clear()
                await connection.changed.wait()
            connection.do(
                partial(
                    H2Connection.send_data, stream_id=request.stream_id, data=b"x",
                    end_stream=number == count - 1, pad_length=255,
                )
            )  # fmt: skip
            await connection.is_writable.wait()

    await arrives(start, give, b"x" * count)


async def test_large_heads_are_no_flood(start: StartGateway) -> None:
    """Though they come in parts, of which the engine reports nothing."""
    block = Encoder().encode([(":status", "200"), ("x-large", "x" * 30_000)], huffman=False)

    def respond(request: H2Request) -> None:
        stream = request.stream_id
        head = HeadersFrame(stream, data=block[:16_384], flags=["END_STREAM"])
        rest = ContinuationFrame(stream, data=block[16_384:], flags=["END_HEADERS"])
        request.connection.send_raw(head.serialize() + rest.serialize())

    async with H2Upstream(on_end=respond) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        for _ in range(4 * IGNORED_BYTES // len(block)):
            assert await fetch(gateway, max_field_size=len(block)) == (200, b"")
        assert len(upstream.connections) == 1


async def test_pings_that_come_with_data_are_no_flood(start: StartGateway) -> None:
    """As of servers that measure the round trip with each piece."""
    count = CONTROL_FRAMES * 3 // 2

    async def give(request: H2Request) -> None:
        request.head()
        for number in range(count):
            request.connection.do(lambda h2: h2.ping(b"12345678"))
            await request.give(b"x", ends=number == count - 1)
            if number % 100 == 0:
                await asyncio.sleep(0)  # the gateway is in this loop

    await arrives(start, give, b"x" * count)
