"""One connection to an upstream target: HTTP/1.1 on the wire, one exchange at a time.

It knows bytes, framing and deadlines, and nothing of clients, routes or tokens. What it
reads it hands to the exchange in progress by plain calls, without a task in between.

RFC 9112 sections 6 (message body), 7.1.2 (trailers, dropped here), 9 (connections);
RFC 9110 section 15.2 (interim responses).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from gateway.http.deadline import Deadline
from gateway.http.errors import (
    ResponseHeadTimeoutError,
    StreamIdleTimeoutError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilentError,
)
from gateway.http.h1_body import Body, BodyFramingError, ChunkedBody, EndlessBody, SizedBody
from gateway.http.response_head import BODILESS, ResponseHead, read_response_head

MAX_RESPONSE_HEAD_BYTES = 64 * 1024
MAX_INTERIM_RESPONSES = 16


class ResponseSink(Protocol):
    """Who wants the response: told of its parts in order, `whole`, `end` or `fail` being
    the last."""

    def interim(self, head: ResponseHead) -> None:
        """An interim (1xx) head other than 101."""

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """The final head and all of the body, in place of `head`, `body` and `end`."""

    def head(self, head: ResponseHead) -> None:
        """The final head."""

    def body(self, piece: bytes) -> None:
        """A piece of the body, framing removed."""

    def flush(self) -> None:
        """Everything that arrived with the last read was handed over."""

    def end(self) -> None:
        """The response is complete."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """The head was a 101; `rest` are the first bytes of the new protocol."""

    def fail(self, error: UpstreamError) -> None:
        """The response will not be complete."""

    def upstream_writable(self) -> None:
        """The connection takes bytes again."""


class RawSink(Protocol):
    """Who wants the bytes after a protocol switch."""

    def upstream_received(self, data: bytes) -> None:
        """Bytes of the new protocol."""

    def upstream_lost(self) -> None:
        """The connection is closed."""

    def upstream_writable(self) -> None:
        """The connection takes bytes again."""


class UpstreamConnection(asyncio.Protocol):
    """A pooled connection. Between exchanges it is idle and must stay silent."""

    __slots__ = (
        "_body", "_buffer", "_deadline", "_has_responded", "_idle_timeout_s", "_interim_count",
        "_is_response_to_head", "_keeps_alive", "_known_head", "_on_lost", "_raw", "_sink",
        "_waits_for_head", "exchange_count", "is_reading_paused", "is_write_paused", "transport",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        idle_timeout_s: float,
        on_lost: Callable[[UpstreamConnection], None],
    ) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._on_lost = on_lost
        # Per connection.
        self.transport: asyncio.Transport | None = None
        self.exchange_count = 0
        self.is_reading_paused = False
        self.is_write_paused = False
        self._deadline = Deadline(loop, self._expire)
        # Answers to the same request mostly begin with the same bytes.
        self._known_head: tuple[bytes, ResponseHead] | None = None
        # Per exchange.
        self._sink: ResponseSink | None = None
        self._raw: RawSink | None = None
        self._buffer = b""
        self._body: Body | None = None
        self._is_response_to_head = False
        self._waits_for_head = False
        self._has_responded = False
        self._keeps_alive = False
        self._interim_count = 0

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "active" if self._sink else "idle"
        return f"<UpstreamConnection {state}, {self.exchange_count} exchanges>"

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written to it."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def is_reused(self) -> bool:
        """Whether it has carried an exchange before the one in progress."""
        return self.exchange_count > 1

    @property
    def may_be_reused(self) -> bool:
        """Whether the finished exchange left the connection fit for another; `Endpoint`
        looks whether it is still open when it is wanted."""
        return self._keeps_alive

    # What the exchange asks for.

    def begin(self, sink: ResponseSink, *, is_head_request: bool) -> None:
        """Start an exchange. Answers to HEAD have no body, whatever they say."""
        self._sink = sink
        self._buffer = b""
        self._body = None
        self._is_response_to_head = is_head_request
        self._has_responded = False
        self._keeps_alive = False
        self._interim_count = 0
        self.exchange_count += 1

    def write(self, chunk: bytes) -> None:
        """Send bytes; `is_write_paused` tells whether to stop until `upstream_writable`."""
        if self.transport is not None:
            self.transport.write(chunk)

    def await_head(self, timeout_s: float) -> None:
        """The request is sent: the final head is due within `timeout_s` seconds."""
        if self._body is None:
            self._waits_for_head = True
            self._deadline.set(timeout_s)

    def wait_for_client(self) -> None:
        """It is the client's turn to move: the upstream can't be late."""
        self._deadline.clear()

    def park(self, timeout_s: float) -> None:
        """Become idle, for `timeout_s` seconds at most."""
        self._deadline.set(timeout_s)

    def touch(self) -> None:
        """Something moved in the exchange: grant it another idle timeout."""
        if not self._waits_for_head:
            self._deadline.set(self._idle_timeout_s)

    def pause_reading(self) -> None:
        """Take no more of the response until `resume_reading`."""
        if not self.is_reading_paused and self.transport is not None:
            self.is_reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take the rest of the response."""
        if self.is_reading_paused and self.is_open and self.transport is not None:
            self.is_reading_paused = False
            self.transport.resume_reading()
            if self._sink is not None or self._raw is not None:
                self.touch()

    def tunnel(self, raw: RawSink, *, idle_timeout_s: float) -> None:
        """Hand over every byte as it comes from now on (after a 101)."""
        self._sink = None
        self._raw = raw
        self._idle_timeout_s = idle_timeout_s
        self._waits_for_head = False
        self.touch()

    def abort(self) -> None:
        """Give the exchange and the connection up. Nobody is told."""
        self._let_go()
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close when what was written has been sent. Nobody is told."""
        self._let_go()
        if self.transport is not None:
            self.transport.close()

    def _let_go(self) -> None:
        self._sink = None
        self._raw = None
        self._deadline.close()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport subclasses, they only behave so.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            if self._raw is not None:
                self.touch()
                self._raw.upstream_received(data)
            else:
                # An idle upstream that speaks would answer the next request with this.
                self.abort()
            return
        self._has_responded = True
        try:
            if self._body is None:
                self._read_head(data, sink)
            else:
                self._read_body(self._body, data, sink)
        except UpstreamError as error:
            self._fail(error)
        except BodyFramingError:
            self._fail(
                UpstreamProtocolError("upstream_protocol", "The body of the response is broken.")
            )
        else:
            if self._sink is not None:
                self.touch()
                sink.flush()

    def pause_writing(self) -> None:
        self.is_write_paused = True

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self.touch()
        listener = self._sink or self._raw
        if listener is not None:
            listener.upstream_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._deadline.close()
        sink, raw, self._sink, self._raw = self._sink, self._raw, None, None
        self._on_lost(self)
        if raw is not None:
            raw.upstream_lost()
        elif sink is not None:
            if isinstance(self._body, EndlessBody) and exc is None:
                sink.end()
            else:
                sink.fail(_closed_error(has_responded=self._has_responded))

    # The response.

    def _read_head(self, data: bytes, sink: ResponseSink) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = self._understand(data[:end])
            rest = data[end + 4 :]
            if head.status >= 200:
                self._begin_body(head, rest, sink)
                return
            if head.status == 101:
                self._deadline.clear()
                sink.switched(head, rest)
                return
            self._interim_count += 1
            if self._interim_count > MAX_INTERIM_RESPONSES:
                raise UpstreamProtocolError("upstream_protocol", "Too many interim responses.")
            sink.interim(head)
            data = rest
        if len(data) > MAX_RESPONSE_HEAD_BYTES:
            raise UpstreamProtocolError("upstream_protocol", "The response's head is too large.")
        if not b"HTTP/1.".startswith(data[:7]):
            raise UpstreamProtocolError("upstream_protocol", "The response is not HTTP/1.")
        self._buffer = data

    def _understand(self, block: bytes) -> ResponseHead:
        if len(block) > MAX_RESPONSE_HEAD_BYTES:
            raise UpstreamProtocolError("upstream_protocol", "The response's head is too large.")
        known = self._known_head
        if known is None or known[0] != block:
            known = self._known_head = block, read_response_head(block)
        return known[1]

    def _begin_body(self, head: ResponseHead, rest: bytes, sink: ResponseSink) -> None:
        self._waits_for_head = False
        self._keeps_alive = head.keeps_alive
        body: Body
        if (
            len(rest) == head.length
            and not self._is_response_to_head
            and head.status not in BODILESS
        ):
            self._sink = None
            self._deadline.clear()
            sink.whole(head, rest)
            return
        if not head.has_body(is_response_to_head=self._is_response_to_head):
            body = SizedBody(0)
        elif head.is_chunked:
            body = ChunkedBody()
        elif head.length is not None:
            body = SizedBody(head.length)
        else:
            self._keeps_alive = False
            body = EndlessBody()
        self._body = body
        sink.head(head)
        if self._sink is not None:  # else it does not want this response
            self._read_body(body, rest, sink)

    def _read_body(self, body: Body, data: bytes, sink: ResponseSink) -> None:
        if data and not body.is_complete:
            if piece := body.feed(data):
                sink.body(piece)
            data = body.rest
        if not body.is_complete:
            return
        if data:
            # More than the response had: whose response would the rest be?
            self._keeps_alive = False
        self._sink = None
        self._deadline.clear()
        sink.end()

    def _fail(self, error: UpstreamError) -> None:
        sink = self._sink
        self.abort()
        if sink is not None:
            sink.fail(error)

    def _expire(self) -> None:
        if self._sink is None:
            raw = self._raw
            self.abort()
            if raw is not None:
                raw.upstream_lost()
        elif self._waits_for_head:
            self._fail(
                ResponseHeadTimeoutError(
                    "upstream_response_timeout", "The upstream did not respond in time."
                )
            )
        else:
            self._fail(StreamIdleTimeoutError("stream_idle_timeout", "Nothing moved for too long."))


def _closed_error(*, has_responded: bool) -> UpstreamClosedError:
    if has_responded:
        return UpstreamClosedError("upstream_closed", "The upstream cut its response off.")
    return UpstreamSilentError("upstream_silent", "The upstream closed without a response.")
