"""HTTP/2 connections, fuzzed on both sides: the engine, its adapter, and what is made of it.

The first byte of the input splits the rest into reads, as on a socket. Whatever comes, a request is
handed over once and released once, a response ends once, what is written are whole frames, and
nothing is left when the connection is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import cast

from hpack import Encoder
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from fuzz.transport import Transport
from gateway.app.build.listeners import client_limits
from gateway.config import Config
from gateway.downstream.connections import ConnectionManager
from gateway.downstream.h2 import H2Connection
from gateway.downstream.h2_limits import H2Settings
from gateway.downstream.request import Peer, Request
from gateway.downstream.stream import ClientStream
from gateway.http.errors import ProblemError, UpstreamError
from gateway.http.fields import Trailers
from gateway.http.h2 import PREFACE
from gateway.http.response_head import ResponseHead, make_response_head
from gateway.metrics import Metrics
from gateway.upstream.h2 import MultiplexedConnection
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import ResponseSink, UpstreamRequestHead

_SETTINGS = H2Settings(
    max_concurrent_streams=8,
    initial_window=65_535,
    connection_window=1 << 20,
    max_age_s=0.0,
    max_resets=20,
)
MAX_READ = 512
CheckLines = Callable[[bytes], None]


class _Transport(Transport):
    """That of an HTTP/2 connection."""

    def set_protocol(self, protocol: object) -> None:
        """It stays the same."""


def _check_frames(written: bytes) -> None:
    """Assert that all that was written are frames, by another reader of them."""
    while written:
        assert len(written) >= 9, "a frame is cut off"
        frame, length = Frame.parse_frame_header(memoryview(written[:9]))
        assert len(written) >= 9 + length, "a frame is cut off"
        try:
            frame.parse_body(memoryview(written[9 : 9 + length]))
        except HyperframeError as error:
            raise AssertionError(f"no frame: {error}") from error
        written = written[9 + length :]


def _reads(data: bytes) -> Iterator[bytes]:
    size = (data[0] * 2 if data else 0) or MAX_READ
    return (data[at : at + size] for at in range(1, len(data), size))


class _Owner:
    """Responds when the body has come, or before; sees the client leave."""

    def __init__(self, stream: ClientStream, request: Request, done: Callable[[], None]) -> None:
        self._stream, self._request, self._done = stream, request, done
        self._is_over = False
        stream.owner = self
        if request.error is not None:
            self._finish(400)
        elif request.head.has_body and request.method != "DELETE":
            stream.read_body(self)
        else:
            self._finish(200)

    def pause(self) -> None:
        """Nothing is sent in pieces."""

    def resume(self) -> None:
        """Nothing is sent in pieces."""

    def client_gone(self) -> None:
        self._release()

    def take(self, piece: bytes) -> None:
        assert not self._is_over, "a body goes on behind its end"

    def end_of_body(self, trailers: Trailers = ()) -> None:
        for name, _ in trailers:
            assert not name.startswith(b":")
            assert name not in (b"content-length", b"x-client-id", b"authorization")
        self._finish(204)

    def body_failed(self, error: ProblemError) -> None:
        self._finish(400)

    def _finish(self, status: int) -> None:
        self._stream.respond(make_response_head(status, (), length=0), b"")
        self._release()

    def _release(self) -> None:
        assert not self._is_over, "a request ends twice"
        self._is_over = True
        self._stream.release()
        self._done()


def make_h2_connection(check_lines: CheckLines) -> Callable[[bytes], None]:
    """Make the target of a client's connection."""

    def h2_connection(data: bytes) -> None:
        """Frames of a client."""
        counts = [0, 0]

        def handle(stream: ClientStream, request: Request) -> None:
            counts[0] += 1
            check_lines(request.head.lines)
            if request.error is None:
                assert request.target.path.startswith("/") or request.target.path == "*"

            def done() -> None:
                counts[1] += 1

            _Owner(stream, request, done)

        async def run() -> None:
            metrics, transport = Metrics(), _Transport()
            server = ConnectionManager(handle, limits=client_limits(Config()), metrics=metrics)
            server.http2 = _SETTINGS
            loop = asyncio.get_running_loop()
            client = H2Connection(server, loop, Peer("192.0.2.7"), _SETTINGS)
            client.start(cast(asyncio.Transport, transport), b"")
            server.opened(client)
            client.data_received(PREFACE + SettingsFrame(0).serialize())
            for piece in _reads(data):
                if transport.is_over:
                    break
                client.data_received(piece)
                await asyncio.sleep(0)
                assert len(client._streams) <= _SETTINGS.max_concurrent_streams
            await asyncio.sleep(0)
            client.connection_lost(None)
            await asyncio.sleep(0)
            assert counts[0] == counts[1], counts
            assert not client._streams
            assert metrics.data_plane.h2.connections == 0
            _check_frames(transport.written)

        asyncio.run(run())

    return h2_connection


class _Sink(ResponseSink):
    """Receives one response."""

    def __init__(self, check_lines: CheckLines) -> None:
        self._check_lines = check_lines
        self._has_head = False
        self.ends = 0

    def informed(self, head: ResponseHead) -> None:
        assert not self._has_head
        self._check_lines(head.lines)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        self.head(head)
        self.end()

    def head(self, head: ResponseHead) -> None:
        assert not self._has_head, "a second final head"
        assert 200 <= head.status <= 599
        self._has_head = True
        self._check_lines(head.lines)

    def body(self, piece: bytes) -> None:
        assert self._has_head
        assert not self.ends

    def end(self, trailers: Trailers = ()) -> None:
        assert self._has_head
        self.ends += 1

    def failed(self, error: UpstreamError) -> None:
        self.ends += 1


def make_h2_upstream(check_lines: CheckLines) -> Callable[[bytes], None]:
    """Make the target of a connection to an upstream."""

    def h2_upstream(data: bytes) -> None:
        """Frames of an upstream, which three requests were sent to."""

        async def run() -> None:
            transport = _Transport()
            connection = MultiplexedConnection(
                asyncio.get_running_loop(),
                UpstreamTimeouts(),
                scheme=b"http",
                on_lost=lambda one: None,
                on_changed=lambda one: None,
            )
            connection.attach(cast(asyncio.Transport, transport))
            sinks = [_Sink(check_lines) for _ in range(3)]
            for number, sink in enumerate(sinks):
                method = ("GET", "HEAD", "POST")[number]
                line = b"%b /a HTTP/1.1\r\n" % method.encode()
                has_body = method == "POST"
                head = UpstreamRequestHead(line, b"h", b"X: y\r\n", method=method,
                                           is_chunked=has_body)  # fmt: skip
                stream = connection.open(sink)
                stream.send_request(head, ends=not has_body)
                if has_body:
                    stream.send_body(b"body")
            await asyncio.sleep(0)
            for piece in _reads(data):
                if transport.is_over:
                    break
                connection.receive(piece)
                await asyncio.sleep(0)
            connection.lost()
            await asyncio.sleep(0)
            assert [sink.ends for sink in sinks] == [1, 1, 1]
            assert connection.stream_count == 0
            assert transport.written.startswith(PREFACE)
            _check_frames(transport.written[len(PREFACE) :])

        logging.disable(logging.WARNING)  # what is broken is reported, for each input
        try:
            asyncio.run(run())
        finally:
            logging.disable(logging.NOTSET)

    return h2_upstream


def _head(stream: int, *fields: tuple[str, str], ends: bool = True) -> HeadersFrame:
    flags = {"END_HEADERS", "END_STREAM"} if ends else {"END_HEADERS"}
    return HeadersFrame(stream, flags=flags, data=Encoder().encode(fields))


def _seed(*frames: Frame, size: int = 0) -> bytes:
    return bytes((size,)) + b"".join(frame.serialize() for frame in frames)


def _request(method: str) -> tuple[tuple[str, str], ...]:
    return (
        (":method", method), (":scheme", "http"), (":authority", "h"), (":path", "/a"),
        ("x-client-id", "x"), ("cookie", "a=b"),
    )  # fmt: skip


_OK = ((":status", "200"), ("content-type", "text/plain"))
SEEDS: dict[str, list[bytes]] = {
    "h2_connection": [
        _seed(_head(1, *_request("GET")), _head(3, *_request("GET"))),
        _seed(
            _head(1, *_request("POST"), ("content-length", "4"), ends=False),
            WindowUpdateFrame(1, window_increment=9),
            DataFrame(1, data=b"body", flags={"END_STREAM"}),
            size=5,
        ),
        _seed(
            _head(1, *_request("POST"), ends=False), DataFrame(1, data=b"body"),
            _head(1, ("x-checksum", "1")), PingFrame(0, opaque_data=b"12345678"),
        ),
        _seed(
            HeadersFrame(1, flags={"END_STREAM"}, data=b"\x82\x86\x84"),
            ContinuationFrame(1, flags={"END_HEADERS"}, data=b"\x41\x01h"),
            RstStreamFrame(1, error_code=8), SettingsFrame(0, settings={4: 1}),
        ),
    ],
    "h2_upstream": [
        _seed(SettingsFrame(0), _head(1, *_OK, ends=False), DataFrame(1, data=b"ok"),
              _head(1, ("grpc-status", "0"))),
        _seed(SettingsFrame(0, settings={3: 1}), _head(3, *_OK), _head(5, (":status", "103"),
              ends=False), _head(5, *_OK), RstStreamFrame(5), size=4),
        _seed(SettingsFrame(0), RstStreamFrame(1, error_code=7), WindowUpdateFrame(5,
              window_increment=4), PingFrame(0, opaque_data=b"12345678")),
    ],
}  # fmt: skip
