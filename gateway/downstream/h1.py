"""The client's connection: HTTP/1.1 on the wire, one request at a time.

It knows bytes, framing and deadlines, and nothing of routes, tokens or upstreams. A head is read
in the call that brought its last byte, and its response may be written in the same call: no task
is made for a request that need not wait. Pipelined requests wait their turn in the buffer, and the
client with them.

`_state` says who takes the bytes that the socket brings.

          ┌──────────────────────── release: keep-alive ───────────────────────┐
          ▼                                                                    │
  ──► HEAD ── whole head ──► LATER ── read_body ──► BODY ── last byte ──► LATER┤
          │                   │ │                    │                         │
          │ unreadable,       │ └── upgrade ──► TUNNEL ─────────┐              │
          │ too slow          │                      │          │              │
          ▼                   ▼                      ▼          ▼              ▼
        LATER ────────────── release: no keep-alive, or body not taken ──► IGNORE
      (400, 408)                                             closes, or lingers

  - `request` is set from a whole head (or an unreadable one) until `release`. In between, the
    pipeline calls the methods of `ClientStream`; `owner` receives pause, resume and client_gone.
  - LATER keeps up to `MAX_BUFFERED_BYTES`: of a body that is not read yet, or of the next request.
  - In BODY, while `has_more` of it, the socket is not read: the rest is fed in turns to come.
  - `ResponseWriter` is the other half. A response that comes in pieces is pending until `flush`
    or `end`; `respond` replaces what is pending.
  - The deadline is one of: keep-alive or head (no request), body (a sink waits for the client),
    write (the client takes nothing), half-close, lingering. While the client isn't to move: none.
  - `reset`, `connection_lost` and a deadline end every state. After `connection_lost`, `request`
    is None, and every method does nothing.

RFC 9112 sections 2.2 (parsing), 9.3 (pipelining), 9.6 (closing); RFC 9110 section 10.1.1.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from gateway.downstream.h1_head import HeadReader
from gateway.downstream.h1_response import CONTINUE, ResponseWriter, render_switch_head
from gateway.downstream.h2 import H2Connection
from gateway.downstream.request import Peer, Request
from gateway.downstream.stream import BodySink, ConnectionOwner, StreamOwner
from gateway.downstream.turns import H2_WORK, PIECE_BYTES
from gateway.http.deadline import AT_ONCE_S, Deadline
from gateway.http.errors import (
    BadRequestError,
    HeadTooLargeError,
    ProblemError,
    RequestTimeoutError,
)
from gateway.http.h1_body import BodyFramingError, ChunkedBody, SizedBody, trailers_of
from gateway.http.h2 import PREFACE
from gateway.http.request_head import can_become_a_head, malformed, skip_empty_lines
from gateway.http.response_head import ResponseHead
from gateway.http.tls_transport import hold_in_socket

MAX_BUFFERED_BYTES = 64 * 1024
"""What is kept of a client that sends ahead of its turn; then it has to wait."""
_NOTHING_YET = (b"", b"\r")
"""Of a head: it begins with the first byte that is not of an empty line."""
LINGER_S = 5.0
"""How long what a client still sends is read, and thrown away, after a final response."""
# The states, as drawn above. Numbers: to keep a method would make an object for each request.
_HEAD: Final = 0
_LATER: Final = 1
_BODY: Final = 2
_TUNNEL: Final = 3
_IGNORE: Final = 4


class H1Connection(ResponseWriter):
    """A client's connection, and the stream of the request in flight on it (`ClientStream`).

    An `asyncio.Protocol` by its methods, not by its class, which would keep mypyc from compiling
    attributes."""

    __slots__ = (
        "_body_due", "_heads", "_is_broken", "_is_closing", "_is_reading_paused",
        "_loop", "_state", "_tunnel", "is_write_paused", "peer",
    )  # fmt: skip

    def __init__(
        self, server: ConnectionOwner, loop: asyncio.AbstractEventLoop, address: str = ""
    ) -> None:
        """`address` is the client's, where it is not that of the socket's peer."""
        super().__init__(server)
        self._loop = loop
        self.peer = Peer(address)
        self.is_write_paused = False
        self._is_reading_paused = False
        self._is_closing = False
        self._is_broken = False
        """Whether the start of a next request cannot be found."""
        self._state = _HEAD
        self._tunnel: BodySink | None = None
        self._deadline = Deadline(loop, self._expire)
        self._heads = HeadReader(self.peer, self._limits)
        self.owner: StreamOwner | None = None
        self._body_due = 0.0
        """When more of the body must have come, on the loop's clock; 0 until it is waited for.
        While the socket is not read: how long is left, in seconds."""

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "active" if self.request else "idle"
        return f"<H1Connection {state}>"

    def reconfigure(self) -> None:
        """Apply the server's current rules, also to what was found out by the old ones."""
        old = self.peer
        self._limits = self._server.limits
        self.peer = self._server.identify(
            old.address, scheme=old.scheme, certificate=old.certificate
        )
        self._heads = HeadReader(self.peer, self._limits)

    # The request's body (`ClientStream`).

    def read_body(self, sink: BodySink) -> None:
        request = self.request
        if request is None:
            return
        data, self._buffer, self._behind = self._buffer + self._behind, b"", b""
        awaits_body = self._body is not None and not data
        if awaits_body and request.head.expects_continue and not request.is_http_10:
            self._write(CONTINUE)
        self._sink = sink
        self._body_due = 0.0
        self.resume_body()
        self._receive_body(data)

    def pause_body(self) -> None:
        """Take no more from the socket."""
        if not self._is_reading_paused and self.transport is not None:
            self._is_reading_paused = True
            if self._body is None or not self._body.has_more:  # else it is paused until its turn
                self.transport.pause_reading()
            if self._sink is not None:
                self._deadline.clear()  # it is not the client who is late
                if self._body_due:
                    self._body_due -= self._loop.time()

    def resume_body(self) -> None:
        """Read from the socket again."""
        if self._is_reading_paused and self.transport is not None:
            self._is_reading_paused = False
            if self._body is not None and self._body.has_more:
                self._server.turns.wait(self._read_body_on)
            else:
                self.transport.resume_reading()
            if self._sink is not None:
                if self._body_due:
                    self._body_due += self._loop.time()
                self._await_body(0)

    # The end of an exchange (`ClientStream`).

    def upgrade(self, head: ResponseHead, sink: BodySink) -> None:
        if self.request is None:
            return
        self._keeps_alive = False
        self._write(render_switch_head(head, self.request.request_id))
        self._deadline.clear()
        self._state, self._tunnel = _TUNNEL, sink
        self.resume_body()
        if self._is_half_closed:
            self.reset()
        if data := self._take_buffer():
            sink.take(data)

    def release(self) -> None:
        if self.request is None:
            return
        self.request = self.owner = None
        is_body_complete = True
        if self._body is not None:
            self._discard_body()
            is_body_complete = self._body.is_complete
            self._body = self._sink = None
        if not self._keeps_alive or not is_body_complete:
            self._close(lingers=not is_body_complete or self._is_broken)
        elif self._buffer or self._behind:
            self._server.turns.wait(self._read_on)
        elif self._is_reading_paused:
            self._read_on()
        else:
            self._rest()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport subclasses, they only behave so.
        self.transport = cast(asyncio.Transport, transport)
        self.peer = self._server.identify_peer(transport, self.peer.address)
        self._heads = HeadReader(self.peer, self._limits)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            hold_in_socket(self.transport)
            if tls.selected_alpn_protocol() == "h2":
                self._hand_over(b"", is_known=False)
                return
        self._deadline.set(self._limits.keepalive_timeout_s)
        self._server.opened(self)

    def _may_begin_h2(self, data: bytes) -> bool:
        """Whether the first bytes of the connection are HTTP/2's preface, or the beginning of it
        (RFC 9113 section 3.4)."""
        is_first = self._heads.is_unused and self.request is None
        return self._server.http2 is not None and is_first and PREFACE.startswith(data[:24])

    def _hand_over(self, data: bytes, *, is_known: bool) -> None:
        """Give the socket, and what has come on it, to a connection that speaks HTTP/2.
        `is_known`: the server knows this one."""
        settings, transport, turns = self._server.http2, self.transport, self._server.turns
        if transport is None:
            return
        if settings is None or self._is_half_closed:  # switched off by a reload, or no use
            transport.close()
            return
        data, self._behind = data + self._behind, b""
        if is_known and not turns.begin(H2_WORK, self._read_on, is_due=self._state == _LATER):
            self._state, self._buffer = _LATER, data
            self._deadline.clear()  # it is not the client who is late
            return
        self.resume_body()
        successor = H2Connection(self._server, self._loop, self.peer, settings)
        self._is_closing = True
        self._buffer = b""
        self._deadline.close()
        self.transport = None
        if is_known:
            self._server.replaced(self, successor)
        successor.start(transport, data)
        if not is_known:
            self._server.opened(successor)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._deadline.close()
        self._state, self._tunnel = _IGNORE, None
        self._server.lost(self)
        owner, sink = self.owner, self._sink
        self.request = self.owner = self._body = self._sink = None
        if owner is not None:
            owner.client_gone()
        elif sink is not None:
            sink.body_failed(RequestTimeoutError("client_body", "The request body broke off."))

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            self._read_head(self._buffer + data if self._buffer else data)
        elif state == _LATER:
            self._receive_later(data)
        elif state == _BODY:
            self._receive_body(data)
        elif self._tunnel is not None:
            self._tunnel.take(data)
        else:
            self._server.turns.discard(self.transport, len(data))

    def eof_received(self) -> bool:
        """Keep the connection for the response, where the client has sent a request and closed
        its side; not with TLS, whose transports end here. One that has left looks the same."""
        is_kept = self._state == _LATER and self.peer.scheme != "https"
        if is_kept and self._limits.half_close_timeout_s:
            self._is_half_closed = True
            self._await_response()
        elif not self._is_half_closed:
            self._deadline.set(self._limits.body_timeout_s)
        return self._is_half_closed

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._deadline.set(self._limits.body_timeout_s)
        if self.owner is not None:
            self.owner.pause()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self._is_closing:
            if self.transport is not None and not self.transport.is_closing():
                self._deadline.set(LINGER_S)
            return
        self._await_response()
        if self._sink is not None and not self._is_reading_paused:
            self._await_body(0)
        if self.request is None:
            self._server.turns.wait(self._read_on)
        elif self.owner is not None:
            self.owner.resume()

    # Heads.

    def _read_on(self) -> None:
        """Go on with what has come already; with nothing, the connection is idle."""
        if self.request is not None or self._is_closing or self.transport is None:
            return
        data, self._buffer = self._buffer, b""
        if len(data) > 2 * PIECE_BYTES and not self._behind:
            data, self._behind = data[:PIECE_BYTES], data[PIECE_BYTES:]
        if data or self._behind:
            self._read_head(data)
        else:
            self._rest()
        if self._state == _HEAD:
            self.resume_body()

    def _read_head(self, data: bytes) -> None:
        """Read a request off the front of `data`. The next one waits for its response, and for its
        turn."""
        if self.is_write_paused:
            # It asks for more than it takes: `resume_writing` goes on.
            self._state, self._buffer = _LATER, data
            return
        # Of a head that comes in pieces, the whole is read once.
        if not self._buffer or b"\r\n\r\n" in data:
            request = self._heads.try_read(data)
            if request is not None:
                self._begin(request, data[self._heads.end :])
                return
        if data.startswith(b"\r\n"):
            data = skip_empty_lines(data)
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            self._read_request(data[:end], data[end + 4 :])
        elif self._behind:
            data += self._behind[:PIECE_BYTES]
            self._behind = self._behind[PIECE_BYTES:]
            self._read_head(data)
        elif self._is_half_closed:
            self._rest()
        else:
            self._await_head(data)

    def _rest(self) -> None:
        """Nothing of a next request has come."""
        self._state, self._buffer = _HEAD, b""
        self._deadline.set(self._limits.keepalive_timeout_s)
        if self._is_half_closed:
            self._close(lingers=False)

    def _await_head(self, data: bytes) -> None:
        """The head has no end yet."""
        if data in _NOTHING_YET:  # empty lines are let pass, but they win no time
            if not self._deadline.is_set:
                self._rest()
            self._state, self._buffer = _HEAD, data
            return
        if self._buffer in _NOTHING_YET:
            self._deadline.set(self._limits.head_timeout_s)
        self._state, self._buffer = _HEAD, data
        if len(data) > self._limits.head_bytes:
            error = HeadTooLargeError("head_too_large", "The request head is too large.")
            self._refuse(error, data.partition(b"\r\n")[0])
        elif not can_become_a_head(data) and not self._may_begin_h2(data):
            self._refuse(malformed())

    def _read_request(self, head: bytes, rest: bytes) -> None:
        """Read one request in Python, whose head is complete, and handle it."""
        self._buffer = rest
        try:
            request = self._heads.read(head)
        except ProblemError as error:
            data = head + b"\r\n\r\n" + rest
            if self._may_begin_h2(data):
                self._hand_over(data, is_known=True)
            else:
                self._refuse(error, data.partition(b"\r\n")[0])
            return
        self._begin(request, rest)

    def _begin(self, request: Request, rest: bytes) -> None:
        """Handle a request whose head was read; `rest` came behind it."""
        self._buffer = rest
        if request.error is not None:
            self._reject_unreadable(request)
            return
        self._deadline.clear()
        if self._is_half_closed:
            self._await_response()
        self.request = request
        fields = request.head
        self._keeps_alive = not fields.closes and (fields.keeps_alive or not request.is_http_10)
        if fields.has_body:
            self._body = ChunkedBody() if fields.is_chunked else SizedBody(fields.length)
        self._state = _LATER
        self._server.handle(self, request)

    def _reject_unreadable(self, request: Request) -> None:
        self._keeps_alive, self._is_broken = False, True
        self.request = request
        self._server.handle(self, request)

    def _refuse(self, error: ProblemError, line: bytes = b"") -> None:
        """Reject what can't be read; `line` is the request line, as far as it came."""
        self._reject_unreadable(self._heads.reject(error, line))

    # What comes after a head.

    def _receive_later(self, data: bytes) -> None:
        """Buffer bytes without a reader yet: of a body, or of a next request."""
        if self._behind:
            self._behind += data
        else:
            self._buffer += data
        if len(self._buffer) + len(self._behind) > MAX_BUFFERED_BYTES:
            self.pause_body()

    def _receive_body(self, data: bytes) -> None:
        body, sink = self._body, self._sink
        if body is None or sink is None:
            return
        self._state = _BODY
        try:
            piece = body.feed(data) if data or body.has_more else data
        except BodyFramingError:
            self._is_broken = True
            sink.body_failed(BadRequestError("malformed", "The request body is not valid."))
            return
        if body.has_more:
            self._wait_for_turn()
        if piece:
            sink.take(piece)
            if self._sink is not sink:
                return  # it gave up, and the connection may be about to close
        if body.is_complete:
            self._sink = None
            self._deadline.clear()
            if self._is_half_closed:
                self._await_response()
            self._state, self._buffer = _LATER, body.rest
            sink.end_of_body(trailers_of(body))
        elif self._is_half_closed and not body.has_more:
            self._sink = None
            sink.body_failed(RequestTimeoutError("client_body", "The request body broke off."))
        elif not self._is_reading_paused:
            self._await_body(len(data))

    def _wait_for_turn(self) -> None:
        """Read the rest of very many chunks in a later turn, and nothing from the socket before."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
            self._server.turns.wait(self._read_body_on)

    def _read_body_on(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing() or self._is_reading_paused:
            return  # if it is paused, `resume_body` waits for another turn
        transport.resume_reading()
        self._receive_body(b"")

    def _await_body(self, received: int) -> None:
        """Expect more of the body, `received` bytes having come."""
        now = self._loop.time()
        self._body_due = self._limits.body_due(now, self._body_due, received)
        self._deadline.set(max(self._body_due - now, AT_ONCE_S))

    # Ends.

    def _close(self, *, lingers: bool) -> None:
        """Close when what was written has been sent.

        Closing on bytes that were not read resets the connection, and the response may be
        lost with it. So where a client may still be sending, it first gets the end of the
        response, and is then read from for a while.
        """
        transport = self.transport
        self._is_closing = True
        self._state, self._tunnel = _IGNORE, None
        if transport is None:
            return
        lingers = bool(self._take_buffer()) or lingers
        if not lingers or self._is_half_closed or transport.is_closing():
            self._close_transport(transport)
            return
        if transport.can_write_eof():
            transport.write_eof()
        self.resume_body()
        if not self.is_write_paused:  # else `resume_writing` does
            self._deadline.set(LINGER_S)

    def _expire(self) -> None:
        transport, sink = self.transport, self._sink
        if transport is None:
            return
        if self.is_write_paused or transport.is_closing():
            transport.abort()
        elif self._is_half_closed:
            if self._writes_seen == self._write_count:
                transport.abort()
            else:  # it took what was written since
                self._await_response()
        elif sink is not None:
            self._sink = None
            sink.body_failed(RequestTimeoutError("client_body_timeout", "The body is too slow."))
        elif self.request is None and self._buffer not in _NOTHING_YET:
            self._refuse(RequestTimeoutError("head_timeout", "The request head is too slow."))
        elif self.request is None:
            self._close_transport(transport)
