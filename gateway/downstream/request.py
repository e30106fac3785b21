"""One request of a client, with exactly one reading, and the way to answer it."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import getrandbits
from typing import TYPE_CHECKING, Protocol

from gateway.addresses import find_client
from gateway.http.errors import (
    BadRequestError,
    Headers,
    NotImplementedMethodError,
    ProblemError,
)
from gateway.http.request_head import RequestHead, RequestLine, routing_host
from gateway.http.target import RequestTarget
from gateway.oauth.binding.certificates import read_certificate_header
from gateway.oauth.parameters import RawHeaders, header_values

if TYPE_CHECKING:
    from gateway.downstream.h1 import H1Connection
    from gateway.proxy.request_log import RequestContext
    from gateway.proxy.response_filter import ResponseFilter
    from gateway.proxy.tracing import RequestSpan
    from gateway.proxy.tunnel import Tunnel

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_TRACE_ID = re.compile(rb"(?!0{32})[0-9a-f]{32}")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_HEAD = RequestHead(b"", {}, b"")
_NO_LINE = RequestLine("-", RequestTarget("", ""), is_http_10=False, onward=b"")


class StreamOwner(Protocol):
    """Whoever makes the response to a request, as the client's connection knows it."""

    def pause(self) -> None:
        """The client takes no more for now."""

    def resume(self) -> None:
        """The client takes bytes again."""

    def client_gone(self) -> None:
        """The client went away: nobody waits for the response any more."""


class BodySink(Protocol):
    """Whoever wants the body of a request, told of its pieces in order."""

    def take(self, piece: bytes) -> None:
        """A piece, framing removed."""

    def end_of_body(self) -> None:
        """The body is complete."""

    def body_failed(self, error: ProblemError) -> None:
        """The body will not be complete."""


class ClientRequest:
    """A request as the gateway understands it.

    Everything ambiguous is refused before it is `understood`, so nothing behind it looks at
    the raw form again. Where that fails, `error` says why, and the rest is empty.
    """

    # Not slots: most requests set few of these, and what is not set costs nothing here.
    line = _NO_LINE
    method = "-"
    target = _NO_LINE.target
    head = _NO_HEAD
    host = b""
    """As received; empty for HTTP/1.0 without one."""
    forwarded_host = ""
    """What a trusted proxy in front says that the client called, in `Forwarded`."""
    routing_host = ""
    """As routes name it: lower-case, without port and trailing dot."""
    is_http_10 = False
    is_websocket = False
    keep_alive = False
    """Whether the connection can serve another request after this one."""
    is_dpop = False
    """Whether its token is shown with the DPoP scheme."""
    extra_fields: Headers = ()
    """Fields for the head of the response, whoever makes it."""
    response_filter: ResponseFilter | None = None
    """What the route makes of the response, whoever makes it."""
    body_taps: tuple[Callable[[BodySink], BodySink], ...] = ()
    """What stands between the body and whoever takes it."""
    on_finish: Callable[[], None] | None = None
    """Who else wants to know when it is over."""
    error: ProblemError | None = None
    """Why the request can't be understood, if so."""
    owner: StreamOwner | None = None
    context: RequestContext
    """What becomes of it; set by the recorder."""

    def __init__(self, connection: H1Connection) -> None:
        self.connection = connection
        # Set here: mypyc makes no default of a class whose module it reads after this one.
        self.span: RequestSpan | None = None
        """Of its trace; None without tracing."""
        self.client = connection.peer
        """Address of the client, as far as it can be trusted."""
        self.scheme: str = connection.scheme
        """`http` or `https`: how the client called us, or the trusted proxy in front."""
        # It only has to be unique, not secret, so it costs no system call.
        self.request_id = self.trace_id = b"%032x" % getrandbits(128)

    def understand(self, line: RequestLine, head: RequestHead) -> None:
        """Fill in what was read. Raises `ProblemError` where it has no single reading."""
        connection = self.connection
        self.line, self.method, self.target = line, line.method, line.target
        self.head = head
        if line.is_http_10:
            self.is_http_10 = True
            self.keep_alive = head.keeps_alive and not head.closes
            if head.is_chunked:
                raise BadRequestError("framing", "HTTP/1.0 has no chunks.")
        else:
            self.keep_alive = not head.closes
            self.is_websocket = head.wants_websocket and line.method == "GET"
        if connection.is_trusted:
            found = find_client(
                connection.peer,
                connection.server.trusted_proxies,
                forwarded_for=head.all(b"x-forwarded-for"),
                forwarded_proto=head.all(b"x-forwarded-proto"),
                forwarded=head.all(b"forwarded"),
            )
            self.client = found.address
            self.scheme = found.scheme or connection.scheme
            self.forwarded_host = found.host
            self._keep_request_id(head.one(b"x-request-id"))
        if line.method == "CONNECT":
            raise NotImplementedMethodError("connect", "This gateway is not a forward proxy.")
        if head.host is None and not line.is_http_10:
            # Also where the target names an authority (RFC 9112 section 3.2).
            raise BadRequestError("host", "The request has no Host header.")
        if line.target.authority is not None:
            self.host = line.target.authority.encode("ascii")
            self.routing_host = routing_host(self.host)
        elif head.host is not None:
            self.host, self.routing_host = head.host

    # What tokens with a restriction ask of the request that shows them (`RequestEvidence`).

    @property
    def path(self) -> str:
        """Its canonical path."""
        return self.target.path

    @property
    def raw_headers(self) -> RawHeaders:
        """Its fields as they came."""
        return self.head.raw_fields()

    @property
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the client proved to hold: in the handshake with us, or with
        the trusted proxy in front, which says so in a header."""
        connection = self.connection
        header = connection.server.certificate_header
        if header and connection.is_trusted:
            # The certificate of this connection would be the proxy's own.
            values = header_values(self.raw_headers, header)
            return read_certificate_header(values[0]) if len(values) == 1 else None
        return connection.peer_certificate

    def _keep_request_id(self, given: bytes) -> None:
        """Take the id that a trusted proxy in front has given, if it can't break a log."""
        if _REQUEST_ID.fullmatch(given):
            self.request_id = given
            if _TRACE_ID.fullmatch(given):
                self.trace_id = given

    def settle_keep_alive(self) -> bool:
        """Decide whether the connection can serve another request, for the head that tells it.

        Decided once: a drain that begins after the head was rendered must not close a
        connection on which the client was promised another response.
        """
        connection = self.connection
        if not connection.is_body_complete:
            # A response before the end of the body: what is still coming is no next request.
            connection.discard_body()
            self.keep_alive = self.keep_alive and connection.is_body_complete
        if connection.server.is_draining:
            self.keep_alive = False
        return self.keep_alive

    def read_body(self, sink: BodySink) -> None:
        """Let the body go to `sink`, from its first byte on. A client that waits for it is
        told to send it (RFC 9110 section 15.2.1)."""
        if self.head.expects_continue and not self.is_http_10 and self.connection.awaits_body:
            self.write(_CONTINUE)
        for tap in self.body_taps:
            sink = tap(sink)
        self.connection.read_body(sink)

    def write(self, chunk: bytes) -> None:
        """Send bytes of the response; for a client that has gone away, nothing."""
        transport = self.connection.transport
        if transport is not None and not transport.is_closing():
            transport.write(chunk)

    def finish(self) -> None:
        """The response is complete, or given up: the connection goes on to its next request."""
        self.owner = None
        if self.on_finish is not None:
            self.on_finish()
        self.connection.finish(self)

    def abort(self) -> None:
        """Cut the connection, so that a partial response can't be taken for a whole one."""
        self.connection.abort()

    def switch_to(self, tunnel: Tunnel) -> None:
        """Hand every byte that comes from now on, or has come, to the tunnel."""
        self.connection.switch_to(tunnel)

    def pause_reading(self) -> None:
        """Take no more bytes from the client."""
        self.connection.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes from the client again."""
        self.connection.resume_reading()
