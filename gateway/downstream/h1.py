"""The client's connection: HTTP/1.1 on the wire, one request at a time.

First step of the request path. It knows bytes, framing and deadlines, and nothing of
routes, tokens or upstreams. A head is read in the call that brought its last byte, and
its response may be written in the same call: no task is made for a request that need not
wait. Pipelined requests wait their turn in the buffer, and the client with them.

RFC 9112 sections 2.2 (parsing), 9.3 (pipelining), 9.6 (closing); RFC 9110 section 10.1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from gateway.addresses import UNKNOWN_PEER, plain_address
from gateway.downstream.request import BodySink, ClientRequest
from gateway.http.deadline import Deadline
from gateway.http.errors import (
    BadRequestError,
    HeadTooLargeError,
    ProblemError,
    RequestTimeoutError,
)
from gateway.http.fields import Field
from gateway.http.h1_body import Body, BodyFramingError, ChunkedBody, SizedBody
from gateway.http.request_head import (
    can_become_a_head,
    malformed,
    read_request_head,
    read_request_line,
)
from gateway.oauth.access import CachedToken

if TYPE_CHECKING:
    from gateway.downstream.connections import ConnectionManager
    from gateway.proxy.tunnel import Tunnel

MAX_BUFFERED_BYTES = 64 * 1024
"""What is kept of a client that sends ahead of its turn; then it has to wait."""
MAX_REQUESTS_AT_ONCE = 16
"""Pipelined requests that are answered in one go before others get their turn."""
_NOTHING_YET = (b"", b"\r")
"""Of a head: it begins with the first byte that is not of an empty line."""
_AT_ONCE_S = 0.001
"""For `Deadline`, to which 0 means never."""
LINGER_S = 5.0
"""How long what a client still sends is read, and thrown away, after a final response."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client, and all together, may use."""

    max_connections: int
    max_per_source: int
    """Of one address, or one IPv6 /64; 0 is no limit."""
    head_timeout_s: float
    """From the first byte of a head to its last."""
    body_timeout_s: float
    """The longest pause within a body, in either direction."""
    keepalive_timeout_s: float
    head_bytes: int
    headers: int
    min_body_rate: int
    """Bytes a second of a request's body, on the average of `body_timeout_s`; 0 is no limit."""


class H1Connection(asyncio.Protocol):
    """A client's connection, as one of a `ConnectionManager`.

    What comes is given to `_receive`, which is the state of the connection: a head is due,
    a body, nothing before the response is out, a tunnel's bytes, or nothing ever again.
    """

    __slots__ = (
        "_body", "_body_due", "_buffer", "_deadline", "_is_closing", "_is_reading_heads",
        "_is_reading_paused", "_kept_lines", "_known_head", "_limits", "_loop", "_receive",
        "_sink", "bearer", "forwarding", "is_trusted", "is_write_paused", "peer",
        "request", "scheme", "server", "transport",
    )  # fmt: skip

    def __init__(self, server: ConnectionManager, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop
        self._limits = server.limits
        # Per connection.
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        """Its address, or `LOCAL_PEER`."""
        self.scheme = "http"
        self.is_trusted = False
        """Whether the peer is one whose word about the client counts."""
        self.is_write_paused = False
        self._is_reading_paused = False
        self._is_reading_heads = False
        self._is_closing = False
        self._receive: Callable[[bytes], None] = self._receive_head
        self._buffer = b""
        self._deadline = Deadline(loop, self._expire)
        # Clients mostly say the same in every request on a connection: the last head is
        # kept with all that was found out about it.
        self.forwarding: tuple[bytes, bytes] | None = None
        """The lines that tell the upstream of this connection, by the host that they name."""
        self._kept_lines: dict[bytes, Field] = {}
        self.bearer: tuple[bytes, CachedToken] | None = None
        """The Authorization value that came last, and the token that it was."""
        self._known_head = (b"", read_request_head(b"", max_fields=0))
        # Per request.
        self.request: ClientRequest | None = None
        self._body: Body | None = None
        self._body_due = 0.0
        """When more of the body must have come, on the loop's clock; 0 until it is waited for.
        While the socket is not read: how long is left, in seconds."""
        self._sink: BodySink | None = None

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "active" if self.request else "idle"
        return f"<ClientConnection {state}>"

    def reconfigure(self) -> None:
        """Go by the other rules that the server has now. What was found out by the old ones is
        found out anew."""
        self._limits = self.server.limits
        self.is_trusted = self.peer in self.server.trusted_proxies
        self.forwarding = None
        self._known_head = (b"", read_request_head(b"", max_fields=0))

    # What requests ask for.

    @property
    def is_body_complete(self) -> bool:
        """Whether the body of the request in hand has come to its end, if it has one."""
        return self._body is None or self._body.is_complete

    @property
    def awaits_body(self) -> bool:
        """Whether nothing has come yet of the body of the request in hand."""
        return self._body is not None and not self._buffer

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate (DER) that the peer proved to hold in the TLS handshake."""
        tls = self.transport.get_extra_info("ssl_object") if self.transport else None
        certificate: bytes | None = tls.getpeercert(binary_form=True) if tls else None
        return certificate

    def read_body(self, sink: BodySink) -> None:
        """Hand the body of the request in hand to `sink`."""
        self._sink = sink
        self._body_due = 0.0
        data, self._buffer = self._buffer, b""
        self.resume_reading()
        self._receive_body(data)

    def discard_body(self) -> None:
        """Throw away what has come of a body that nobody wants."""
        body = self._body
        if body is not None and self._sink is None and not body.is_complete and self._buffer:
            with contextlib.suppress(BodyFramingError):
                body.feed(self._buffer)
                self._buffer = body.rest

    def pause_reading(self) -> None:
        """Take no more from the socket."""
        if not self._is_reading_paused and self.transport is not None:
            self._is_reading_paused = True
            self.transport.pause_reading()
            if self._sink is not None:
                self._deadline.clear()  # it is not the client who is late
                if self._body_due:
                    self._body_due -= self._loop.time()

    def resume_reading(self) -> None:
        """Read from the socket again."""
        if self._is_reading_paused and self.transport is not None:
            self._is_reading_paused = False
            self.transport.resume_reading()
            if self._sink is not None:
                if self._body_due:
                    self._body_due += self._loop.time()
                self._await_body(0)

    def switch_to(self, tunnel: Tunnel) -> None:
        """Hand what comes, and what has come already, to a tunnel."""
        self._deadline.clear()
        self._receive = tunnel.client_received
        data, self._buffer = self._buffer, b""
        if data:
            tunnel.client_received(data)

    def finish(self, request: ClientRequest) -> None:
        """The response to the request in hand is out."""
        if request is not self.request:
            return
        self.request = None
        is_body_complete = True
        if self._body is not None:
            self.discard_body()
            is_body_complete = self._body.is_complete
            self._body = self._sink = None
        if not request.keep_alive or not is_body_complete:
            self._close(lingers=not is_body_complete or request.error is not None)
        elif self._is_reading_heads:
            pass  # `_read_heads` is our caller, and goes on itself
        elif self._buffer or self._is_reading_paused:
            self._read_on()
        else:
            self._rest()

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport subclasses, they only behave so.
        self.transport = cast(asyncio.Transport, transport)
        # Told already on a Unix socket, or by a load balancer (the PROXY protocol).
        if not self.peer:
            # Who has left already has no name, and must not be taken for somebody local.
            peername = transport.get_extra_info("peername")
            self.peer = plain_address(str(peername[0])) if peername else UNKNOWN_PEER
        if transport.get_extra_info("sslcontext") is not None:
            self.scheme = "https"
        self._deadline.set(self._limits.keepalive_timeout_s)
        self.server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._deadline.close()
        self._receive = _ignore
        self.server.lost(self)
        request, sink = self.request, self._sink
        self.request = self._body = self._sink = None
        if request is not None and request.owner is not None:
            request.owner.client_gone()
        elif sink is not None:
            sink.body_failed(RequestTimeoutError("client_body", "The request body broke off."))

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._deadline.set(self._limits.body_timeout_s)
        if self.request is not None and self.request.owner is not None:
            self.request.owner.pause()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self._deadline.clear()
        if self._sink is not None and not self._is_reading_paused:
            self._await_body(0)
        request = self.request
        if request is None:
            self._read_on()
        elif request.owner is not None:
            request.owner.resume()

    # Heads.

    def _receive_head(self, data: bytes) -> None:
        self._read_heads(self._buffer + data if self._buffer else data)

    def _read_on(self) -> None:
        """Go on with what has come already; with nothing, the connection is idle."""
        if self.request is not None or self._is_closing or self.transport is None:
            return
        data, self._buffer = self._buffer, b""
        if data:
            self._read_heads(data)
        else:
            self._rest()
        if not self._is_busy():
            self.resume_reading()

    def _is_busy(self) -> bool:
        """Whether a request is in hand: asked of the connection anew, since calls change it."""
        return self.request is not None

    def _read_heads(self, data: bytes) -> None:
        """Read requests off the front of `data`, until one has to wait for its response."""
        self._is_reading_heads = True
        for _ in range(MAX_REQUESTS_AT_ONCE):
            if self.is_write_paused:
                # It asks for more than it takes: `resume_writing` goes on.
                self._wait(data)
                break
            if data.startswith(b"\r\n"):
                data = _without_empty_lines(data)
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._await_head(data)
                break
            self._read_request(data[:end], data[end + 4 :])
            if self._is_busy() or self._is_closing:
                break
            data, self._buffer = self._buffer, b""
            if not data:
                self._rest()
                break
        else:
            self._wait(data)
            self._loop.call_soon(self._read_on)
        self._is_reading_heads = False

    def _wait(self, data: bytes) -> None:
        self._buffer = data
        self._receive = self._receive_later

    def _rest(self) -> None:
        """Nothing of a next request has come."""
        self._buffer = b""
        self._receive = self._receive_head
        self._deadline.set(self._limits.keepalive_timeout_s)

    def _await_head(self, data: bytes) -> None:
        """The head has no end yet."""
        if data in _NOTHING_YET:
            # Empty lines are let pass, but they win no time.
            if not self._deadline.is_set:
                self._rest()
            self._receive = self._receive_head
            self._buffer = data
            return
        if self._buffer in _NOTHING_YET:
            self._deadline.set(self._limits.head_timeout_s)
        self._receive = self._receive_head
        self._buffer = data
        if len(data) > self._limits.head_bytes:
            self._refuse(HeadTooLargeError("head_too_large", "The request head is too large."))
        elif not can_become_a_head(data):
            self._refuse(malformed())

    def _read_request(self, head: bytes, rest: bytes) -> None:
        """Read one request, whose head is complete, and have it answered."""
        self._buffer = rest
        request = ClientRequest(self)
        try:
            if len(head) > self._limits.head_bytes:
                raise HeadTooLargeError("head_too_large", "The request head is too large.")
            line, _, block = head.partition(b"\r\n")
            known = self._known_head
            if block != known[0]:
                head_fields = read_request_head(
                    block, max_fields=self._limits.headers, kept=self._kept_lines
                )
                known = block, head_fields
                if certificate := self.server.certificate_header:
                    # The upstream may believe this field, too.
                    head_fields.drop_spellings(certificate, keeps_exact=self.is_trusted)
                self._known_head = known
            request.understand(read_request_line(line), known[1])
        except ProblemError as error:
            self._reject_unreadable(request, error)
            return
        self._deadline.clear()
        self.request = request
        if known[1].has_body:
            self._body = ChunkedBody() if known[1].is_chunked else SizedBody(known[1].length)
        self._receive = self._receive_later
        self.server.handle(request)

    def _reject_unreadable(self, request: ClientRequest, error: ProblemError) -> None:
        request.error = error
        request.keep_alive = False
        self.request = request
        self.server.handle(request)

    def _refuse(self, error: ProblemError) -> None:
        self._reject_unreadable(ClientRequest(self), error)

    # What comes after a head.

    def _receive_later(self, data: bytes) -> None:
        """Bytes nobody wants yet: of a body that nobody reads, or of a next request."""
        self._buffer += data
        if len(self._buffer) > MAX_BUFFERED_BYTES:
            self.pause_reading()

    def _receive_body(self, data: bytes) -> None:
        body, sink = self._body, self._sink
        if body is None or sink is None:
            return
        self._receive = self._receive_body
        try:
            piece = body.feed(data) if data else data
        except BodyFramingError:
            if self.request is not None:
                self.request.error = malformed()
            sink.body_failed(BadRequestError("malformed", "The request body is not valid."))
            return
        if piece:
            sink.take(piece)
            if self._sink is not sink:
                return  # it gave up, and the connection may be about to close
        if body.is_complete:
            self._sink = None
            self._deadline.clear()
            self._receive = self._receive_later
            self._buffer = body.rest
            sink.end_of_body()
        elif not self._is_reading_paused:
            self._await_body(len(data))

    def _await_body(self, received: int) -> None:
        """More of the body is due, `received` bytes having come.

        A bucket of time: it holds `body_timeout_s`, drains while we wait for the client, and
        each byte fills it as the lowest rate says. So neither a pause may last longer, nor may
        a byte now and then hold a connection for good.
        """
        limits, now = self._limits, self._loop.time()
        due = now + limits.body_timeout_s
        if limits.min_body_rate and self._body_due:
            due = min(due, self._body_due + received / limits.min_body_rate)
        self._body_due = due
        self._deadline.set(max(due - now, _AT_ONCE_S))

    # Ends.

    def _close(self, *, lingers: bool) -> None:
        """Close when what was written has been sent.

        Closing on bytes that were not read resets the connection, and the response may be
        lost with it. So where a client may still be sending, it is first told that the
        answer is over, and then listened to for a while.
        """
        transport = self.transport
        self._is_closing = True
        self._receive = _ignore
        if transport is None or transport.is_closing():
            return
        if lingers or self._buffer:
            self._buffer = b""
            if transport.can_write_eof():
                transport.write_eof()
            self.resume_reading()
            self._deadline.set(LINGER_S)
        else:
            transport.close()

    def _expire(self) -> None:
        transport, sink = self.transport, self._sink
        if transport is None:
            return
        if self.is_write_paused:
            transport.abort()
        elif sink is not None:
            self._sink = None
            sink.body_failed(RequestTimeoutError("client_body_timeout", "The body is too slow."))
        elif self.request is None and self._buffer not in _NOTHING_YET:
            self._refuse(RequestTimeoutError("head_timeout", "The request head is too slow."))
        elif self.request is None:
            transport.close()


def _without_empty_lines(data: bytes) -> bytes:
    """RFC 9112 section 2.2: empty lines before a request line are let pass."""
    at = 2
    while data.startswith(b"\r\n", at):
        at += 2
    return data[at:]


def _ignore(data: bytes) -> None:
    pass
