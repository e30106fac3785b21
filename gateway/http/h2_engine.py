"""The HTTP/2 engine: frames, HPACK, flow control and the states of streams, for both roles.

The only module that calls the package behind it (`ngh2`, which bundles libnghttp2; the extra
`http2`), loaded with the first connection. It does no I/O: bytes go in by `receive`, come out by
`data_to_send`, and what they mean is reported to an `H2Events`, in `receive` and `report`. Calls
for a stream or a connection that has ended do nothing: the end is reported, or was. RFC 9113.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from gateway.http.h2 import (
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    NO_RFC7540_PRIORITIES,
    PROTOCOL_ERROR,
    Fields,
    H2Error,
    H2Events,
)

_engine: Any = None
_reports: dict[Any, Callable[[H2Events, Any], None]] = {}


def _load() -> Any:
    global _engine  # noqa: PLW0603
    if _engine is None:
        import ngh2 as e

        _reports.update({
            e.InformationalResponseReceived:
                lambda on, e: on.informational_received(e.stream_id, e.headers),
            e.TrailersReceived: lambda on, e: on.trailers_received(e.stream_id, e.headers),
            e.StreamReset: lambda on, e: on.stream_reset(e.stream_id, e.error_code),
            e.WindowUpdated: lambda on, e: on.window_updated(e.stream_id, e.increment),
            e.SettingsReceived: lambda on, e: on.settings_received(e.settings),
            e.SettingsAcknowledged: lambda on, e: on.settings_acknowledged(),
            e.PingReceived: lambda on, e: on.ping_received(e.opaque_data),
            e.PingAcknowledged: lambda on, e: on.ping_acknowledged(e.opaque_data),
            e.GoAwayReceived: lambda on, e: on.goaway_received(e.last_stream_id, e.error_code),
            e.ConnectionClosed: lambda on, e: on.connection_ended(e.error_code),
        })  # fmt: skip
        _engine = e
    return _engine


class H2Engine:
    """One connection."""

    def __init__(
        self,
        events: H2Events,
        *,
        is_server: bool,
        settings: Mapping[int, int],
        connection_window: int = DEFAULT_WINDOW,
        max_fields: int = 256,
        max_head_bytes: int = 65_536,
        resets: tuple[int, int] = (1000, 33),
        glitches: tuple[int, int] = (10_000, 330),
    ) -> None:
        """`max_head_bytes` counts 32 more for each field (RFC 9113 section 6.5.2). `resets` and
        `glitches` are how many at once, and a second, end the connection."""
        engine = _load()
        self._on: H2Events | None = events
        self._head_kind = engine.RequestReceived if is_server else engine.ResponseReceived
        self._body_kind: Any = engine.DataReceived
        self._closed_kind: Any = engine.StreamClosed
        self._error: type[Exception] = engine.NGH2Error
        self._flooded: type[Exception] = engine.DenialOfServiceError
        self._broken: type[Exception] = engine.ConnectionProtocolError
        config = engine.Configuration(
            auto_window_update=False,
            max_inbound_header_count=max_fields,
            max_inbound_header_list_size=max_head_bytes,
            stream_reset_rate_limit=resets,
            glitch_rate_limit=glitches,
        )
        self._core = engine.Connection(
            engine.Role.SERVER if is_server else engine.Role.CLIENT, config
        )
        self._core.initiate_connection({**settings, NO_RFC7540_PRIORITIES: 1})
        if connection_window > DEFAULT_WINDOW:
            self._core.set_local_window_size(connection_window)

    def receive(self, data: bytes) -> int:
        """Take bytes of the peer, and report what they mean; returns of how many events. Raises
        `H2Error`."""
        error: Exception | None = None
        try:
            self._core.receive_data(data)
        except self._error as failure:
            error = failure
        count = self.report()
        if error is not None:
            flooded, broken = isinstance(error, self._flooded), isinstance(error, self._broken)
            code = ENHANCE_YOUR_CALM if flooded else PROTOCOL_ERROR if broken else INTERNAL_ERROR
            raise H2Error(code, str(error))
        return count

    def data_to_send(self, limit: int | None = None) -> bytes:
        """Return bytes for the peer, at most `limit`; `report` comes after they are written.
        Raises `H2Error`."""
        try:
            return bytes(self._core.data_to_send(limit))
        except self._error as failure:
            raise H2Error(INTERNAL_ERROR, str(failure)) from None

    def report(self) -> int:
        """Report what has happened since the last report; returns how many events."""
        on = self._on
        if on is None:
            return 0
        events: list[Any] = self._core.events()
        ignored = 0
        for event in events:
            # What every stream has comes first; the rest takes a look-up and another call.
            kind: Any = type(event)
            if kind is self._body_kind:
                on.body_received(event.stream_id, event.data, event.end_stream)
            elif kind is self._head_kind:
                on.head_received(event.stream_id, event.headers, event.end_stream)
            elif kind is self._closed_kind:
                on.stream_closed(event.stream_id, event.error_code)
            else:
                report = _reports.get(kind)
                if report is None:
                    ignored += 1
                else:
                    report(on, event)
        return len(events) - ignored

    def close(self) -> None:
        """Report nothing any more: the connection is closed."""
        self._on = None

    # Messages. Written out, since most of them are called for every stream.

    def is_open(self, stream_id: int) -> bool:
        """Whether a stream has not ended yet."""
        try:
            return self._core.stream_local_window_size(stream_id) is not None
        except self._error:
            return False

    @property
    def can_open(self) -> bool:
        """Whether a client may open another stream, as far as GOAWAY and stream ids go."""
        try:
            return bool(self._core.can_send_request)
        except self._error:
            return False

    def open(self, fields: Fields, *, ends: bool) -> int:
        """Send the head of a request; returns its stream. Raises `H2Error`."""
        try:
            return int(self._core.send_request(fields, end_stream=ends))
        except self._error as failure:
            raise H2Error(INTERNAL_ERROR, str(failure)) from None

    def respond(self, stream_id: int, fields: Fields, *, ends: bool) -> None:
        """Send the head of a final response."""
        try:
            self._core.send_response(stream_id, fields, end_stream=ends)
        except self._error:
            return  # here as in the others: the stream, or the connection, has ended

    def inform(self, stream_id: int, fields: Fields) -> None:
        """Send an interim response."""
        self._call(self._core.send_informational_response, stream_id, fields)

    def send(self, stream_id: int, data: bytes, *, ends: bool = False) -> None:
        """Queue a piece of a body, which is sent as the windows of the peer allow."""
        try:
            self._core.send_data(stream_id, data, end_stream=ends)
        except self._error:
            return

    def send_trailers(self, stream_id: int, fields: Fields) -> None:
        """End a body with trailers."""
        try:
            self._core.send_trailers(stream_id, fields)
        except self._error:
            return

    def reset(self, stream_id: int, code: int) -> None:
        """Break a stream off, and drop what is queued for it."""
        self._call(self._core.reset_stream, stream_id, code)

    def queued(self, stream_id: int) -> int:
        """Return how many bytes of a body wait for the peer's windows."""
        return int(self._core.queued_body_size(stream_id))

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Give that much of stream's and connection's windows back; also after its end."""
        try:
            self._core.acknowledge_received_data(size, stream_id)
        except self._error:
            return

    # The connection.

    def configure(self, settings: Mapping[int, int]) -> None:
        """Send settings."""
        self._call(self._core.update_settings, settings)

    def ping(self, data: bytes) -> None:
        """Send a PING of 8 bytes."""
        self._call(self._core.ping, data)

    def announce_shutdown(self) -> None:
        """Send the first of two GOAWAYs: requests on their way are still served (server)."""
        self._call(self._core.send_shutdown_notice)

    def shut_down(self, code: int = NO_ERROR) -> None:
        """Send the last GOAWAY: no more streams; those that are open end well."""
        self._call(self._core.send_goaway, code)

    def terminate(self, code: int) -> None:
        """Send GOAWAY, and end with it, whatever is open."""
        self._call(self._core.terminate_connection, code)

    def _call(self, method: Any, *args: Any) -> None:
        with suppress(self._error):  # the stream, or the connection, has ended
            method(*args)
