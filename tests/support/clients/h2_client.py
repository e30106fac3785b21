"""A client of HTTP/2 on a real socket, made of hyper-h2: independent of the gateway's engine."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hyperframe.frame import Frame
from support.deadlines import within

Headers = list[tuple[str, str]]


@dataclass
class H2Response:
    """What has come on a stream."""

    headers: Headers = field(default_factory=list)
    interim: list[Headers] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    """Its body so far."""
    trailers: Headers = field(default_factory=list)
    has_ended: bool = False
    reset: int | None = None
    """The error code of RST_STREAM."""

    @property
    def status(self) -> int:
        """Its status; 0 before it has one."""
        return int(dict(self.headers).get(":status", 0))

    @property
    def body(self) -> bytes:
        """Its body so far."""
        return bytes(self.data)

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.has_ended or self.reset is not None


class H2Client:
    """One connection. With `reads` false, windows are not opened by what is read."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, authority: str = "h"
    ) -> None:
        self.reader, self.writer = reader, writer
        self.authority = authority
        # It sends what a test asks for, right or wrong.
        config = h2.config.H2Configuration(
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.core = h2.connection.H2Connection(config)
        self.responses: dict[int, H2Response] = {}
        self.events: list[h2.events.Event] = []
        self.goaways: list[tuple[int, int]] = []
        """Last stream and error code of each GOAWAY."""
        self.is_closed = False
        self.opens_windows = True
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        first: bytes = b"",
        settings: dict[int, int] | None = None,
        path: str = "",
    ) -> Self:
        """Connect to a port of loopback, or to the Unix socket at `path`; `first` is sent before
        the preface."""
        if path:
            reader, writer = await asyncio.open_unix_connection(path)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        client = cls(reader, writer)
        writer.write(first)
        if settings:
            client.core.update_settings(settings)  # in the first SETTINGS frame
        client.core.initiate_connection()
        client.flush()
        client._task = asyncio.create_task(client._receive())
        return client

    async def close(self) -> None:
        """Close the socket."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def flush(self) -> None:
        """Send what the engine has."""
        self.writer.write(self.core.data_to_send())

    def send_frames(self, *frames: Frame) -> None:
        """Send frames behind the engine's back."""
        self.flush()
        self.writer.write(b"".join(frame.serialize() for frame in frames))

    def begin(
        self,
        path: str = "/public",
        *,
        method: str = "GET",
        fields: Iterable[tuple[str, str]] = (),
        ends: bool = True,
        pseudo: Headers | None = None,
    ) -> int:
        """Send a head; returns its stream."""
        stream = self.core.get_next_available_stream_id()
        if pseudo is None:
            pseudo = [
                (":method", method), (":scheme", "http"), (":authority", self.authority),
                (":path", path),
            ]  # fmt: skip
        self.responses[stream] = H2Response()
        self.core.send_headers(stream, [*pseudo, *fields], end_stream=ends)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Send a piece of a body, which the windows must have room for."""
        self.core.send_data(stream, data, end_stream=ends)
        self.flush()

    def send_trailers(self, stream: int, fields: Headers) -> None:
        """End a body with trailers."""
        self.core.send_headers(stream, fields, end_stream=True)
        self.flush()

    def reset(self, stream: int, code: int = 8) -> None:
        """Break a stream off."""
        self.core.reset_stream(stream, code)
        self.flush()

    async def upload(self, stream: int, data: bytes) -> None:
        """Send a body as the windows allow, and end it."""
        sent = 0
        while sent < len(data):
            room = min(
                self.core.local_flow_control_window(stream), self.core.max_outbound_frame_size
            )
            if room <= 0:
                await self.wait_for_change()
                continue
            piece = data[sent : sent + room]
            sent += len(piece)
            self.send(stream, piece, ends=sent == len(data))
            await self.writer.drain()

    async def wait_for_change(self) -> None:
        """Wait until something has come."""
        self._changed.clear()
        if not self.is_closed:
            async with within():
                await self._changed.wait()

    async def finish(self, stream: int) -> H2Response:
        """Wait for the end of a stream, or of the connection."""
        response = self.responses[stream]
        while not response.is_over and not self.is_closed:
            await self.wait_for_change()
        return response

    async def head_of(self, stream: int) -> H2Response:
        """Wait for the head of a response."""
        response = self.responses[stream]
        while not response.headers and not response.is_over and not self.is_closed:
            await self.wait_for_change()
        return response

    async def request(self, path: str = "/public", body: bytes = b"", **how: object) -> H2Response:
        """Send a request and wait for its response."""
        stream = self.begin(path, ends=not body, **how)  # type: ignore[arg-type]
        if body:
            await self.upload(stream, body)
        return await self.finish(stream)

    async def closed(self) -> list[tuple[int, int]]:
        """Wait for the end of the connection; returns its GOAWAYs."""
        while not self.is_closed:
            await self.wait_for_change()
        return self.goaways

    async def _receive(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(65536):
                try:
                    events = self.core.receive_data(data)
                except h2.exceptions.ProtocolError:
                    break
                for event in events:
                    self._take(event)
                self.flush()
                self._changed.set()
        self.is_closed = True
        self._changed.set()

    def _take(self, event: h2.events.Event) -> None:
        self.events.append(event)
        response = self.responses.setdefault(getattr(event, "stream_id", None) or 0, H2Response())
        if isinstance(event, h2.events.ResponseReceived):
            response.headers = list(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, h2.events.InformationalResponseReceived):
            response.interim.append(list(event.headers))  # type: ignore[arg-type]
        elif isinstance(event, h2.events.DataReceived):
            response.data += event.data or b""
            if self.opens_windows and event.flow_controlled_length and event.stream_id:
                self.core.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            response.trailers = list(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, h2.events.StreamEnded):
            response.has_ended = True
        elif isinstance(event, h2.events.StreamReset):
            response.reset = int(event.error_code or 0)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append((event.last_stream_id or 0, int(event.error_code or 0)))
