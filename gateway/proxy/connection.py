"""One connection to an upstream target: HTTP/1.1 on the wire, one exchange at a time.

It knows bytes, framing and deadlines, and nothing of clients, routes or tokens. What it
reads it hands to the exchange in progress by plain calls, without a task in between.

RFC 9112 sections 6 (message body), 7.1.2 (trailers, dropped here), 9 (connections);
RFC 9110 section 15.2 (interim answers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from gateway.proxy.deadline import Deadline
from gateway.proxy.headers import RawHeaders
from gateway.proxy.problems import (
    ResponseHeadTimeoutError,
    StreamIdleTimeoutError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilentError,
)

MAX_RESPONSE_HEAD_BYTES = 64 * 1024
MAX_INTERIM_RESPONSES = 16


class ResponseSink(Protocol):
    """Who wants the answer: told of its parts in order, `end` or `fail` being the last."""

    def interim(self, status: int, headers: RawHeaders) -> None:
        """An interim (1xx) head other than 101."""

    def head(self, status: int, headers: RawHeaders) -> None:
        """The final head."""

    def body(self, chunk: bytes) -> None:
        """A piece of the body, framing removed."""

    def flush(self) -> None:
        """Everything that arrived with the last read was handed over."""

    def end(self) -> None:
        """The answer is complete."""

    def switched(self, headers: RawHeaders, rest: bytes) -> None:
        """The head was a 101; `rest` are the first bytes of the new protocol."""

    def fail(self, error: UpstreamError) -> None:
        """The answer will not be complete."""

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
        "_deadline", "_expects_body", "_has_answered", "_head_bytes", "_head_done", "_headers",
        "_idle_timeout_s", "_interim_count", "_keeps_alive", "_loop", "_on_lost", "_parser", "_raw",
        "_sink", "_waits_for_head", "exchange_count", "is_write_paused", "reads_until_close",
        "transport",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        idle_timeout_s: float,
        on_lost: Callable[[UpstreamConnection], None],
    ) -> None:
        self._loop = loop
        self._idle_timeout_s = idle_timeout_s
        self._on_lost = on_lost
        # Per connection.
        self.transport: asyncio.Transport | None = None
        self.exchange_count = 0
        self.is_write_paused = False
        self._deadline = Deadline(loop, self._expire)
        self._parser = httptools.HttpResponseParser(self)
        # Per exchange.
        self._sink: ResponseSink | None = None
        self._raw: RawSink | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._head_done = False
        self._expects_body = True
        self._waits_for_head = False
        self._has_answered = False
        self._keeps_alive = False
        self._interim_count = 0
        self.reads_until_close = False

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

    # What the exchange asks for.

    def begin(self, sink: ResponseSink, *, expects_body: bool) -> None:
        """Start an exchange. `expects_body` is false for an answer to HEAD."""
        self._sink = sink
        self._headers = []
        self._head_bytes = 0
        self._head_done = False
        self._expects_body = expects_body
        self._has_answered = False
        self._interim_count = 0
        self.reads_until_close = False
        self.exchange_count += 1

    def write(self, chunk: bytes) -> None:
        """Send bytes; `is_write_paused` tells whether to stop until `upstream_writable`."""
        if self.transport is not None:
            self.transport.write(chunk)

    def await_head(self, timeout_s: float) -> None:
        """The request is sent: the final head is due within `timeout_s` seconds."""
        if not self._head_done:
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
        """Take no more of the answer until `resume_reading`."""
        if self.transport is not None and self.transport.is_reading():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take the rest of the answer."""
        if self.is_open and self.transport is not None and not self.transport.is_reading():
            self.transport.resume_reading()
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
        self._has_answered = True
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._deadline.clear()
            sink.switched(self._headers, data[switch.args[0] :])
            return
        except httptools.HttpParserError as error:
            # After the end of an answer there is no sink any more, but more bytes than the
            # answer had: the connection is not fit for another exchange.
            self._fail(_as_upstream_error(error))
            return
        if not self._head_done and self._head_bytes > MAX_RESPONSE_HEAD_BYTES:
            self._fail(
                UpstreamProtocolError("upstream_protocol", "The answer's head is too large.")
            )
        elif self._sink is not None:
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
            if self.reads_until_close and exc is None:
                sink.end()
            else:
                sink.fail(_closed_error(has_answered=self._has_answered))

    # httptools' side.

    def on_message_begin(self) -> None:
        """A status line begins."""
        if self._sink is None:
            raise UpstreamProtocolError("upstream_protocol", "More than one answer.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of the trailer, which is dropped."""
        if not self._head_done:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        sink = self._sink
        assert sink is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._interim_count += 1
            if self._interim_count > MAX_INTERIM_RESPONSES:
                raise UpstreamProtocolError("upstream_protocol", "Too many interim answers.")
            sink.interim(status, self._headers)
            self._headers = []
            return
        self._head_done = True
        self._waits_for_head = False
        if status == 101:
            return  # `data_received` goes on with it, when the parser has stopped
        self._keeps_alive = self._parser.should_keep_alive()
        has_body = self._expects_body and status not in {204, 304}
        self.reads_until_close = has_body and _is_framed_by_close(self._headers)
        sink.head(status, self._headers)
        if not self._expects_body:
            # The parser can't know that this was an answer to HEAD and would wait for a body.
            self._parser = httptools.HttpResponseParser(self)
            self._end()

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body."""
        if self._sink is None:
            raise UpstreamProtocolError("upstream_protocol", "A body after the answer.")
        self._sink.body(chunk)

    def on_message_complete(self) -> None:
        """The message is complete, be it interim or final."""
        if self._head_done and self._sink is not None and self._parser.get_status_code() != 101:
            self._end()

    def _end(self) -> None:
        sink, self._sink = self._sink, None
        assert sink is not None
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
                    "upstream_response_timeout", "The upstream did not answer in time."
                )
            )
        else:
            self._fail(StreamIdleTimeoutError("stream_idle_timeout", "Nothing moved for too long."))

    @property
    def may_be_reused(self) -> bool:
        """Whether the finished exchange left the connection fit for another."""
        return self._keeps_alive and not self.reads_until_close and self.is_open


def _is_framed_by_close(headers: RawHeaders) -> bool:
    """RFC 9112 section 6.3, item 8: neither a length nor chunks."""
    return not any(name.lower() in {b"content-length", b"transfer-encoding"} for name, _ in headers)


def _as_upstream_error(error: httptools.HttpParserError) -> UpstreamError:
    cause = error.__context__
    if isinstance(cause, UpstreamError):
        return cause
    return UpstreamProtocolError("upstream_protocol", "The upstream's answer is not valid HTTP.")


def _closed_error(*, has_answered: bool) -> UpstreamClosedError:
    if has_answered:
        return UpstreamClosedError("upstream_closed", "The upstream cut its answer off.")
    return UpstreamSilentError("upstream_silent", "The upstream closed without an answer.")
