"""One connection to an upstream target: HTTP/1.1 on the wire, one exchange at a time.

It knows bytes, framing and deadlines, and nothing of clients, routes or tokens. What it
reads it hands to the exchange in progress by plain calls, without a task in between.

          begin                  last byte of the response          release
  IDLE ───────────► ACTIVE ──────────────────────────────► FINISHED ───────► IDLE
   │                │    │                                    │
   │ bytes,         │    └─ 101, upgrade ─► TUNNEL            │ not all sent, or
   │ keep-alive     │ cancel, deadline,       │               │ not to be reused
   ▼ over           ▼ lost, broken            ▼ a side ends   ▼
  CLOSED           CLOSED                    CLOSED          CLOSED

  - `_sink` is set in ACTIVE only, `_tunnel` in TUNNEL only; the pool calls `begin` and `park`.
  - In ACTIVE, `_body` is None until the final head came: then the rest is read by it. The sink
    receives `whole`, `end`, `upgraded` or `failed` last, and nothing after `cancel` or `close`.
    While `has_more` of the body, the socket is not read: the rest is fed in turns to come.
  - The deadline is one of: the head of the response (the request is sent), idle (something moved),
    keep-alive (IDLE). It is cleared while the client isn't sending what is still due.

RFC 9112 sections 6 (message body), 7.1.2 (trailers), 9 (connections, TLS closure);
RFC 9110 section 15.2 (interim responses).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from typing import cast

from gateway.http.deadline import Deadline
from gateway.http.errors import (
    ResponseHeadTimeoutError,
    StreamIdleTimeoutError,
    UpstreamError,
    UpstreamProtocolError,
)
from gateway.http.fields import Trailers
from gateway.http.h1_body import (
    LAST_CHUNK,
    Body,
    BodyFramingError,
    ChunkedBody,
    EndlessBody,
    SizedBody,
    render_chunk,
    trailers_of,
)
from gateway.http.response_head import BODILESS, ResponseHead
from gateway.http.tls_transport import hold_in_socket
from gateway.upstream.h1_head import (
    MAX_RESPONSE_HEAD_BYTES,
    ResponseHeadReader,
    render_request_head,
)
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import ResponseSink, UpstreamRequestHead, UpstreamStream, closed_error

_BARE_LF = re.compile(rb"(?<!\r)\n")
MAX_INTERIM_RESPONSES = 16
MAX_REST_BYTES = 1024 * 1024
"""What is read of a response after the connection broke: more than a socket holds by default."""


class UpstreamConnection(UpstreamStream):
    """A pooled connection, and the stream of the exchange in progress.
    Between exchanges it is idle and must stay silent. An `asyncio.Protocol` by its methods, as
    `H1Connection` is."""

    __slots__ = (
        "_body", "_buffer", "_deadline", "_has_ended", "_has_responded", "_heads", "_interim_count",
        "_is_chunked", "_is_request_sent", "_is_response_to_head", "_is_tls", "_is_turn_due",
        "_keepalive_s", "_keeps_alive", "_longest_idle_s", "_may_pause", "_on_lost", "_on_released",
        "_response_head_s", "_sink", "_spare", "_timeouts", "_tunnel", "_unsent", "_waits_for_head",
        "exchange_count", "is_reading_paused", "transport",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts: UpstreamTimeouts,
        *,
        on_lost: Callable[[UpstreamConnection], None],
        on_released: Callable[[UpstreamConnection], None],
    ) -> None:
        """`on_released` is called when the connection can carry another exchange."""
        self._timeouts = timeouts
        self._response_head_s, self._longest_idle_s = timeouts.response_head_s, timeouts.keepalive_s
        self._on_lost = on_lost
        self._on_released = on_released
        # Per connection.
        self.transport: asyncio.Transport | None = None
        self.exchange_count = 0
        self.is_reading_paused = False
        self.is_write_paused = False
        self._has_ended = False
        """Whether the upstream has said that it sends no more: with TLS, by a close_notify."""
        self._is_tls = False
        self._is_turn_due = False
        self._spare = -1
        """A second descriptor of the socket, while a body is sent."""
        self._deadline = Deadline(loop)
        self._heads = ResponseHeadReader()
        # Per exchange.
        self._unsent = b""
        """Of the request: the head, until some of the body came."""
        self._sink: ResponseSink | None = None
        self._tunnel: ResponseSink | None = None
        self._buffer = b""
        self._body: Body | None = None
        self._is_chunked = self._is_request_sent = False
        self._is_response_to_head = False
        self._waits_for_head = False
        self._has_responded = False
        self._keeps_alive = False
        self._may_pause = False
        """Whether the rest of the response may take as long as it takes."""
        self._keepalive_s = 0.0
        """How long the upstream lets it idle; 0 where it does not say."""
        self._interim_count = 0

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "active" if self._sink else "idle"
        return f"<UpstreamConnection {state}, {self.exchange_count} exchanges>"

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written to it."""
        return self.transport is not None and not self.transport.is_closing()

    # The pool calls these.

    def begin(self, sink: ResponseSink) -> None:
        """Start an exchange, whose response goes to `sink`."""
        self._deadline.clear()
        self._sink = sink
        self._buffer = b""
        self._body = None
        self._is_request_sent = False
        self._has_responded = False
        self._keeps_alive = False
        self._interim_count = 0
        self._unsent = b""
        self._may_pause = False
        self.exchange_count += 1

    def park(self) -> None:
        """Become idle, for `timeouts.keepalive` at most, or for less where the upstream says so."""
        keepalive_s = self._longest_idle_s
        if 0 < self._keepalive_s < keepalive_s:
            keepalive_s = self._keepalive_s
        self._deadline.set(keepalive_s)

    # The exchange calls these.

    @property
    def is_replayable(self) -> bool:
        """Whether it has carried an exchange before the one in progress."""
        return self.exchange_count > 1

    def send_request(self, head: UpstreamRequestHead, *, ends: bool) -> None:
        """Send the head; where a body follows, with the first piece of it, or `flush`."""
        self._is_response_to_head = head.method == "HEAD"
        self._is_chunked = head.is_chunked
        if not ends:
            self._unsent = render_request_head(head)
            return
        if self.transport is not None:
            self.transport.write(render_request_head(head))
        self._await_head()

    def send_body(self, piece: bytes) -> None:
        """Send a piece of the body; not empty."""
        if self._is_chunked:
            piece = render_chunk(piece)
        if self._unsent:
            piece = self._unsent + piece
            self._unsent = b""
        transport = self.transport
        if transport is not None:
            if self._spare < 0 and not self._is_tls:  # else it would hold no plain bytes
                self._spare = _duplicate_descriptor(transport)
            transport.write(piece)
        if self.is_write_paused or self._has_responded:
            self._touch()

    def flush(self) -> None:
        """Send what was kept until now."""
        if self._unsent:
            data, self._unsent = self._unsent, b""
            if self.transport is not None:
                self.transport.write(data)

    def end_body(self, trailers: Trailers = ()) -> None:
        """Finish the request. Trailers are dropped: no upstream of HTTP/1.1 can say that it takes
        them, and some take them for fields of the head."""
        if self._is_chunked:
            self._unsent += LAST_CHUNK
        self.flush()
        self._await_head()

    def _await_head(self) -> None:
        self._is_request_sent = True
        if self._body is None:
            self._waits_for_head = True
            self._deadline.set(self._response_head_s)

    def pause_reading(self) -> None:
        """Take no more of the response until `resume_reading`. Meanwhile the upstream can't be
        late; the client has a deadline of its own."""
        if not self.is_reading_paused and self.transport is not None:
            self.is_reading_paused = True
            if self._body is None or not self._body.has_more:  # else it is paused until its turn
                self.transport.pause_reading()
            if self._tunnel is None and not self._waits_for_head:
                self._deadline.clear()

    def resume_reading(self) -> None:
        """Take the rest of the response."""
        if self.is_reading_paused and self.is_open and self.transport is not None:
            self.is_reading_paused = False
            if self._body is not None and self._body.has_more:
                self._ask_for_turn()
            else:
                self.transport.resume_reading()
            if self._sink is not None or self._tunnel is not None:
                self._touch()

    def release(self) -> None:
        """Return to the pool, or close where the exchange left the connection unfit for another:
        what is left of a request that was not wanted whole can't be unsent."""
        self._close_spare()
        if not self.is_open or not self._is_request_sent or not self._keeps_alive:
            self.cancel()
            return
        if self.is_reading_paused:  # the client of the next one is not full up
            self.resume_reading()
        self._on_released(self)

    def cancel(self) -> None:
        """Give the exchange and the connection up. The sink receives nothing more."""
        self._let_go()
        if self.transport is not None:
            self.transport.abort()

    def upgrade(self, sink: ResponseSink) -> None:
        """Hand every byte to `sink.body` from now on (after a 101), until `end`."""
        self._sink = None
        self._tunnel = sink
        self._waits_for_head = False
        self._touch()

    def send_raw(self, data: bytes) -> None:
        """Send bytes of the new protocol, after `upgrade`."""
        if self.transport is not None:
            self.transport.write(data)
        self._touch()

    def close(self) -> None:
        """Close when what was written has been sent. The sink receives nothing more."""
        self._let_go()
        if self.transport is not None:
            self.transport.close()

    def allow_pauses(self) -> None:
        self._may_pause = True
        self._deadline.clear()

    def _let_go(self) -> None:
        self._sink = None
        self._tunnel = None
        self._deadline.close()

    def _touch(self) -> None:
        """Grant another idle timeout: something moved, in either direction."""
        if self._tunnel is not None:
            self._deadline.set(self._timeouts.tunnel_s)
        elif not self._waits_for_head and not self.is_reading_paused:
            self._deadline.set(0.0 if self._may_pause else self._timeouts.idle_s)

    def _close_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport subclasses, they only behave so.
        self.transport = cast(asyncio.Transport, transport)
        self._deadline.expire = self._expire
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        if self._is_tls:
            hold_in_socket(self.transport)

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            if self._tunnel is not None:
                self._touch()
                self._tunnel.body(data)
            else:
                # An idle upstream that speaks would respond to the next request with this.
                self.cancel()
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
                self._touch()
                sink.flush()

    def pause_writing(self) -> None:
        self.is_write_paused = True

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self._tunnel is not None:
            self._touch()
            self._tunnel.writable()
        elif self._sink is not None:
            if self._is_request_sent:
                self._touch()
            else:
                # It is the client's turn to move: the upstream can't be late.
                self._deadline.clear()
            self._sink.writable()

    def eof_received(self) -> None:
        self._has_ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._deadline.close()
        if self._spare >= 0:
            if isinstance(exc, OSError):
                self._receive_rest()
            self._close_spare()
        while self._sink is not None and self._body is not None and self._body.has_more:
            self.data_received(b"")
        sink, tunnel, self._sink, self._tunnel = self._sink, self._tunnel, None, None
        self._on_lost(self)
        if tunnel is not None:
            tunnel.end()
        elif sink is not None:
            if isinstance(self._body, EndlessBody) and exc is None and self._has_ended:
                sink.end()
            else:
                sink.failed(closed_error(has_responded=self._has_responded))

    def _receive_rest(self) -> None:
        """Receive what had come before a write failed: an upstream may respond to an upload and
        close without reading it whole (RFC 9112 section 9.5)."""
        left = MAX_REST_BYTES
        while self._sink is not None and left > 0:
            try:
                data = os.read(self._spare, left)
            except OSError:  # BlockingIOError: nothing more is there
                return
            if not data:
                return
            left -= len(data)
            self.data_received(data)

    # The response.

    def _read_head(self, data: bytes, sink: ResponseSink) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while (end := self._heads.read(data)) >= 0:
            head, rest = self._heads.head, data[end:]
            if head.status >= 200:
                self._begin_body(head, rest, sink)
                return
            if head.status == 101:
                self._deadline.clear()
                sink.upgraded(head, rest)
                return
            self._interim_count += 1
            if self._interim_count > MAX_INTERIM_RESPONSES:
                raise UpstreamProtocolError("upstream_protocol", "Too many interim responses.")
            sink.informed(head)
            data = rest
        if len(data) > MAX_RESPONSE_HEAD_BYTES:
            raise UpstreamProtocolError("upstream_protocol", "The response's head is too large.")
        if _BARE_LF.search(data):
            # The end that is waited for might never come.
            raise UpstreamProtocolError(
                "upstream_protocol", "A line of the response's head ends without CR."
            )
        if not b"HTTP/1.".startswith(data[:7]):
            raise UpstreamProtocolError("upstream_protocol", "The response is not HTTP/1.")
        self._buffer = data

    def _begin_body(self, head: ResponseHead, rest: bytes, sink: ResponseSink) -> None:
        self._waits_for_head = False
        self._keeps_alive = head.keeps_alive
        self._keepalive_s = head.keepalive_s
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
            body = ChunkedBody(is_response=True)
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
        if (data or body.has_more) and not body.is_complete:
            piece = body.feed(data)
            if body.has_more:
                self._wait_for_turn()
            if piece:
                sink.body(piece)
            data = body.rest
        if not body.is_complete:
            return
        if data:
            # More than the response had: whose response would the rest be?
            self._keeps_alive = False
        self._sink = None
        self._deadline.clear()
        sink.end(trailers_of(body))

    def _wait_for_turn(self) -> None:
        """Read the rest of very many chunks in a later turn, and nothing from the socket before."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
            self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if not self._is_turn_due:
            self._is_turn_due = True
            asyncio.get_running_loop().call_soon(self._read_body_on)

    def _read_body_on(self) -> None:
        self._is_turn_due = False
        if self.transport is None or not self.is_open or self.is_reading_paused:
            return  # if paused, `resume_reading` waits for another turn
        self.transport.resume_reading()
        if self._sink is not None and self._body is not None and self._body.has_more:
            self.data_received(b"")

    def _fail(self, error: UpstreamError) -> None:
        sink = self._sink
        self.cancel()
        if sink is not None:
            sink.failed(error)

    def _expire(self) -> None:
        if self._sink is None:
            tunnel = self._tunnel
            self.cancel()
            if tunnel is not None:
                tunnel.end()
        elif self._waits_for_head:
            text = "The upstream did not respond in time."
            self._fail(ResponseHeadTimeoutError("upstream_response_timeout", text))
        else:
            text = "No data was exchanged within the idle timeout."
            self._fail(StreamIdleTimeoutError("stream_idle_timeout", text))


def _duplicate_descriptor(transport: asyncio.Transport) -> int:
    """A descriptor that outlives the transport, for its receive buffer; -1 where there is none."""
    connected = transport.get_extra_info("socket")
    if connected is None:
        return -1
    try:
        return os.dup(connected.fileno())
    except OSError:  # no descriptor is left, or the connection is lost already
        return -1
