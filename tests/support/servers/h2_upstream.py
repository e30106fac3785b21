"""An upstream of HTTP/2 that follows a script: hyper-h2, an engine independent of ours."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from support.servers.left_ports import keep

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(eq=False)
class H2Request:
    """A request on one stream, as far as it has come, and the way to respond."""

    connection: H2ServerConnection
    stream_id: int
    headers: list[tuple[bytes, bytes]]
    pieces: list[bytes] = field(default_factory=list)
    """Of its body, as they came."""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    has_body: bool = True
    """Whether its head was not its end."""
    is_complete: bool = False
    reset_code: int | None = None
    """What the gateway reset it with."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """That it was reset, or its connection lost."""

    @property
    def body(self) -> bytes:
        """Its body so far."""
        return b"".join(self.pieces)

    def all(self, name: bytes) -> list[bytes]:
        """The values of a field."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: bytes) -> bytes:
        """The only value of a field."""
        [value] = self.all(name)
        return value

    def head(self, status: int | bytes = 200, headers: Headers = (), *, ends: bool = False) -> None:
        """Send the head of a response."""
        fields = [(b":status", str(status).encode() if isinstance(status, int) else status)]
        fields += headers
        self.connection.do(lambda h2: h2.send_headers(self.stream_id, fields, end_stream=ends))

    def send(self, data: bytes, *, ends: bool = False) -> None:
        """Send a piece of a body, which must fit the window of the gateway."""
        self.connection.do(lambda h2: h2.send_data(self.stream_id, data, end_stream=ends))

    async def give(self, data: bytes, *, ends: bool = False) -> None:
        """Send a piece of a body as the windows allow. Raises `ConnectionError` where the stream
        is over."""
        connection = self.connection
        while True:
            if self.over.is_set():
                raise ConnectionResetError
            window = connection.h2.local_flow_control_window(self.stream_id)
            size = min(window, connection.h2.max_outbound_frame_size, len(data))
            if size > 0 or not data:
                piece, data = data[:size], data[size:]
                self.send(piece, ends=ends and not data)
                await connection.is_writable.wait()
                if not data:
                    return
            else:
                connection.changed.clear()
                await connection.changed.wait()

    def acknowledge(self, size: int) -> None:
        """Let the gateway send that much more."""
        if size and not self.over.is_set():
            self.connection.do(lambda h2: h2.acknowledge_received_data(size, self.stream_id))

    def end(self, trailers: Headers = ()) -> None:
        """Finish the response."""
        if trailers:
            fields = list(trailers)
            self.connection.do(lambda h2: h2.send_headers(self.stream_id, fields, end_stream=True))
        else:
            self.send(b"", ends=True)

    def respond(
        self,
        body: bytes = b"ok",
        *,
        status: int = 200,
        headers: Headers = (),
        trailers: Headers = (),
    ) -> None:
        """Send a whole response."""
        self.head(status, headers)
        self.send(body, ends=not trailers)
        if trailers:
            self.end(trailers)

    def reset(self, code: int = 2) -> None:
        """Send RST_STREAM."""
        self.connection.do(lambda h2: h2.reset_stream(self.stream_id, code))


class H2ServerConnection(asyncio.Protocol):
    """One connection to the upstream."""

    def __init__(self, upstream: H2Upstream) -> None:
        self.upstream = upstream
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_outbound_headers=upstream.validates,
                normalize_outbound_headers=upstream.validates,
            )
        )
        self.requests: dict[int, H2Request] = {}
        self.transport: asyncio.Transport | None = None
        self.goaway_code: int | None = None
        self.transport_alpn: str | None = None
        """What was chosen in the handshake."""
        self.changed = asyncio.Event()
        """That windows may be others now."""
        self.is_writable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.upstream.is_stopped:  # it was accepted before
            cast(asyncio.Transport, transport).abort()
            return
        self.transport = cast(asyncio.Transport, transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.transport_alpn = tls.selected_alpn_protocol()
        self.is_writable.set()
        self.upstream.connections.append(self)
        self.h2.local_settings = Settings(client=False, initial_values=self.upstream.settings)
        self.do(lambda h2: h2.initiate_connection())

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        for request in self.requests.values():
            request.over.set()
        self.changed.set()
        self.is_writable.set()
        if self.upstream.on_closed is not None:
            self.upstream.on_closed(self)

    def pause_writing(self) -> None:
        self.is_writable.clear()

    def resume_writing(self) -> None:
        self.is_writable.set()

    def do(self, act: Callable[[H2Connection], None]) -> None:
        """Have the engine do something, and send what comes of it."""
        act(self.h2)
        self.flush()

    def flush(self) -> None:
        """Send what the engine has."""
        data = self.h2.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self.transport is not None
        self.transport.write(data)

    def goaway(self, last_stream_id: int, code: int = 0) -> None:
        """Send GOAWAY; the connection stays open. (hyper-h2's own ends its state machine.)"""
        payload = last_stream_id.to_bytes(4) + code.to_bytes(4)
        self.send_raw(b"\0\0\x08\x07\0\0\0\0\0" + payload)

    def close(self) -> None:
        """Close without a word."""
        if self.transport is not None:
            self.transport.abort()

    def hang_up(self) -> None:
        """Close when what was written has been sent."""
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.upstream.received_bytes += len(data)
        try:
            seen = self.h2.receive_data(data)
        except ProtocolError as error:
            self.upstream.errors.append(error)
            self.flush()
            self.close()
            return
        for event in seen:
            self._handle(event)
        self.flush()
        self.changed.set()

    def _handle(self, event: events.Event) -> None:
        found: Any = event
        request = self.requests.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, events.RequestReceived):
            request = H2Request(
                self, found.stream_id, list(found.headers), has_body=not found.stream_ended
            )
            self.requests[found.stream_id] = request
            self.upstream.requests.append(request)
            if self.upstream.on_head is not None:
                self.upstream.on_head(request)
        elif isinstance(event, events.DataReceived) and request is not None:
            request.pieces.append(found.data)
            if self.upstream.acknowledges and found.flow_controlled_length:
                self.h2.acknowledge_received_data(found.flow_controlled_length, found.stream_id)
            if self.upstream.on_data is not None:
                self.upstream.on_data(request, found.data)
        elif isinstance(event, events.TrailersReceived) and request is not None:
            request.trailers = list(found.headers)
        elif isinstance(event, events.StreamEnded) and request is not None:
            request.is_complete = True
            if self.upstream.on_end is not None:
                self.upstream.on_end(request)
        elif isinstance(event, events.StreamReset) and request is not None:
            request.reset_code = int(found.error_code)
            request.over.set()
        elif isinstance(event, events.PingReceived):
            self.upstream.pings += 1
        elif isinstance(event, events.ConnectionTerminated):
            self.goaway_code = int(found.error_code)


@dataclass
class H2Upstream:
    """Responds to complete requests by `on_end`; `on_head` and `on_data` come before."""

    on_end: Callable[[H2Request], None] | None = H2Request.respond
    on_head: Callable[[H2Request], None] | None = None
    on_data: Callable[[H2Request, bytes], None] | None = None
    on_closed: Callable[[H2ServerConnection], None] | None = None
    acknowledges: bool = True
    """Whether it gives windows back."""
    validates: bool = True
    """Whether what it sends has to be HTTP/2."""
    settings: dict[SettingCodes, int] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    port: int = 0
    requests: list[H2Request] = field(default_factory=list)
    connections: list[H2ServerConnection] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    received_bytes: int = 0
    pings: int = 0
    is_stopped: bool = False

    @property
    def url(self) -> str:
        """What a configuration calls it."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> list[H2ServerConnection]:
        """Those that are open."""
        return [one for one in self.connections if one.transport is not None]

    async def __aenter__(self) -> Self:
        self.is_stopped = False
        self._server = await asyncio.get_running_loop().create_server(
            lambda: H2ServerConnection(self), "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.is_stopped = True
        self._server.close()
        keep(self.port)
        for connection in self.connections:
            connection.close()
