"""Streams of an upstream: one request and its response, whatever protocol carries them.

The seam between an exchange and the protocols of upstreams. A pool opens a stream
(`pool.ConnectionPool`); the exchange sends the request on it and receives the response as a
`ResponseSink`. Framing belongs to the protocol: nothing here is a byte of HTTP/1.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from gateway.http.errors import UpstreamClosedError, UpstreamError, UpstreamSilentError
from gateway.http.fields import Field, Trailers, parse_field
from gateway.http.response_head import ResponseHead


class UpstreamRequestHead:
    """The head of a request as the upstream gets it. Immutable.

    It has two forms: `lines`, as HTTP/1 writes them, and `fields`, made of them when asked for.
    Neither holds Host or framing, which the protocol renders from the attributes.
    """

    __slots__ = (
        "_fields", "authority", "closes", "is_chunked", "length", "lines", "method",
        "request_line", "takes_trailers", "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        request_line: bytes,
        authority: bytes,
        lines: bytes,
        *,
        method: str = "GET",
        length: int = -1,
        is_chunked: bool = False,
        upgrade: bytes = b"",
        closes: bool = False,
        takes_trailers: bool = False,
    ) -> None:
        """`length` is Content-Length, or -1 where the request has none."""
        self.request_line = request_line
        """As HTTP/1.1 writes it, line end included."""
        self.authority = authority
        """Host or `:authority`."""
        self.lines = lines
        """Field lines, each with its line end."""
        self.method = method
        self.length = length
        self.is_chunked = is_chunked
        """Whether the length of the body is not known beforehand."""
        self.upgrade = upgrade
        """The protocol that it asks to switch to, such as `websocket`; empty where it does not."""
        self.closes = closes
        """Whether the connection carries no other request afterwards."""
        self.takes_trailers = takes_trailers
        """Whether trailers of the response reach the client."""
        self._fields: tuple[Field, ...] | None = None

    @property
    def target(self) -> bytes:
        """Path and query."""
        return self.request_line.split(b" ", 2)[1]

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.is_chunked or self.length > 0

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields by name and value, in order; names as they were received."""
        if self._fields is None:
            self._fields = tuple(map(parse_field, self.lines.split(b"\r\n")[:-1]))
        return self._fields

    def with_authority(self, authority: bytes) -> UpstreamRequestHead:
        """The same head for another authority."""
        return self._changed(authority, self.lines)

    def with_line(self, line: bytes) -> UpstreamRequestHead:
        """The same head with one field more."""
        return self._changed(self.authority, self.lines + line)

    def _changed(self, authority: bytes, lines: bytes) -> UpstreamRequestHead:
        return UpstreamRequestHead(
            self.request_line,
            authority,
            lines,
            method=self.method,
            length=self.length,
            is_chunked=self.is_chunked,
            upgrade=self.upgrade,
            closes=self.closes,
            takes_trailers=self.takes_trailers,
        )


class SentBody:
    """Keeps what was sent of a request's body, while it is small and may have to be sent again."""

    __slots__ = ("is_complete", "pieces", "size", "trailers")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.is_complete = False
        self.trailers: Trailers = ()

    def add(self, piece: bytes) -> None:
        """A piece was sent, or is to be."""
        self.pieces.append(piece)
        self.size += len(piece)

    def end(self, trailers: Trailers) -> None:
        """The body is complete."""
        self.is_complete = True
        self.trailers = trailers


class UnprocessedError(UpstreamClosedError):
    """The upstream says that it did not process the request (RFC 9113 section 8.7), which is
    therefore sent again, whatever its method."""

    def __init__(self, reason: str, detail: str, sent: SentBody | None) -> None:
        """`sent` is None where too much of the body is gone."""
        super().__init__(reason, detail)
        self.sent = sent


class ResponseSink:
    """Receives the parts of a response in order; `whole`, `end`, `upgraded` or `failed` is the
    last. A sink that cancels its stream receives nothing more."""

    def needs_upgrade(self) -> bool:
        """Whether the request asks for a WebSocket, which takes a connection of HTTP/1.1."""
        return False

    def informed(self, head: ResponseHead) -> None:
        """Receive an interim (1xx) head other than 101 (RFC 9110 section 15.2)."""

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """Receive the final head and all of the body, in place of `head`, `body` and `end`."""

    def head(self, head: ResponseHead) -> None:
        """Receive the final head."""

    def body(self, piece: bytes) -> None:
        """Receive a piece of the body, framing removed."""

    def flush(self) -> None:
        """Send what was received: nothing more came with the last read."""

    def end(self, trailers: Trailers = ()) -> None:
        """Finish: the response is complete."""

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        """Receive a 101 head, and the first bytes of the new protocol."""

    def failed(self, error: UpstreamError) -> None:
        """Stop: the response will not be complete."""

    def writable(self) -> None:
        """Continue to send the request: the stream takes bytes again."""


class SmallResponse(ResponseSink):
    """Keeps a response: of its body, the first `MAX_BYTES`."""

    MAX_BYTES = 64

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.fields: list[Field] = []
        """Of the head, and the trailers."""
        self.start_of_body = b""

    def whole(self, head: ResponseHead, body: bytes) -> None:
        self.head(head)
        self.body(body)
        self.end()

    def head(self, head: ResponseHead) -> None:
        self.status = head.status
        self.fields += head.fields

    def body(self, piece: bytes) -> None:
        self.start_of_body += piece[: self.MAX_BYTES - len(self.start_of_body)]

    def end(self, trailers: Trailers = ()) -> None:
        self.fields += trailers
        if not self.done.done():
            self.done.set_result(None)

    def failed(self, error: UpstreamError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        self.whole(head, b"")


class StatusSink(SmallResponse):
    """Wants the status of a response, and does not wait for the rest of it."""

    def head(self, head: ResponseHead) -> None:
        self.status = head.status
        self.end()


class UpstreamStream:
    """Carries one request to an upstream. Every call is made by the exchange that it serves.
    A class, not a protocol, so that calls of it are compiled."""

    __slots__ = ("is_write_paused",)

    is_write_paused: bool
    """Whether to send no more of the body until the sink is `writable`."""

    @property
    @abstractmethod
    def is_replayable(self) -> bool:
        """Whether a connection that was lost before any response may have been stale: a reused
        one, whose close and our request can have crossed on the wire."""

    @abstractmethod
    def send_request(self, head: UpstreamRequestHead, *, ends: bool) -> None:
        """Send the head; where a body follows (not `ends`), with the first piece of it, or
        with `flush`: nothing is sent of a request whose body is broken from its start."""

    @abstractmethod
    def flush(self) -> None:
        """Send what was kept until now."""

    @abstractmethod
    def send_body(self, piece: bytes) -> None:
        """Send a piece of the body; not empty."""

    @abstractmethod
    def end_body(self, trailers: Trailers = ()) -> None:
        """Finish the request."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Take no more of the response until `resume_reading`."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Take the rest of the response."""

    @abstractmethod
    def allow_pauses(self) -> None:
        """Wait for the rest of the response as long as it takes."""

    @abstractmethod
    def release(self) -> None:
        """Return to the pool, after the response is complete."""

    @abstractmethod
    def cancel(self) -> None:
        """Give the request up at once. The sink receives nothing more."""

    @abstractmethod
    def upgrade(self, sink: ResponseSink) -> None:
        """Hand every byte to `sink.body` from now on (after a 101), until `end`."""

    @abstractmethod
    def send_raw(self, data: bytes) -> None:
        """Send bytes of the new protocol, after `upgrade`."""

    @abstractmethod
    def close(self) -> None:
        """End a tunnel when what was written has been sent."""


def closed_error(*, has_responded: bool) -> UpstreamClosedError:
    """The error for a connection that the upstream closed before its response was complete."""
    if has_responded:
        return UpstreamClosedError(
            "upstream_closed",
            "The upstream closed the connection before its response was complete.",
        )
    return UpstreamSilentError("upstream_silent", "The upstream closed without a response.")
