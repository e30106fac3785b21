"""Responses on the wire of HTTP/1: heads, chunks, and what becomes of the connection.

The only place that renders an HTTP/1 response. RFC 9112 sections 4 (status line), 6 (framing, which
belongs to a connection and is never copied), 7.1 (chunks), 9.3 and 9.6 (persistence).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import Final

from gateway.downstream.request import Request
from gateway.downstream.stream import BodySink, ClientStream, ConnectionOwner
from gateway.http.deadline import Deadline
from gateway.http.errors import REASON_PHRASES
from gateway.http.fields import Trailers
from gateway.http.h1_body import (
    LAST_CHUNK,
    Body,
    BodyFramingError,
    render_chunk,
    render_last_chunk,
)
from gateway.http.response_head import ResponseHead

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n"
)
"""For connections above a limit, whose requests are not read."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset."""
_STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, REASON_PHRASES.get(status, "").encode())
    for status in range(100, 600)
}


def render_head(
    head: ResponseHead, *, is_chunked: bool, is_http_10: bool, keep_alive: bool, request_id: bytes
) -> bytes:
    """A final head: it says how the body is framed, and whether the connection stays open."""
    framing = b"Transfer-Encoding: chunked\r\n" if is_chunked else b""
    if not keep_alive:
        framing += b"Connection: close\r\n"
    elif is_http_10:
        framing += b"Connection: keep-alive\r\n"
    first_lines = head.first_lines or _STATUS_LINES[head.status]
    return b"%b%b%bX-Request-Id: %b\r\n\r\n" % (first_lines, head.lines, framing, request_id)


def render_interim_head(head: ResponseHead) -> bytes:
    """A 1xx head; it has no body (RFC 9110 section 15.2)."""
    return b"%b%b\r\n" % (_STATUS_LINES[head.status], head.lines)


def render_switch_head(head: ResponseHead, request_id: bytes) -> bytes:
    """A 101 head (RFC 9110 section 7.8, RFC 6455 section 4.2.2)."""
    return b"%bUpgrade: %b\r\nConnection: Upgrade\r\n%bX-Request-Id: %b\r\n\r\n" % (
        _STATUS_LINES[101],
        head.upgrade,
        head.lines,
        request_id,
    )


class ResponseWriter(ClientStream):
    """Writes the response to the request in flight on a connection: one half of it."""

    _deadline: Deadline

    __slots__ = (
        "_behind", "_body", "_buffer", "_deadline", "_head", "_is_chunked", "_is_half_closed",
        "_keeps_alive", "_limits", "_piece", "_server", "_sink", "_write_count", "_writes_seen",
        "request", "transport",
    )  # fmt: skip

    def __init__(self, server: ConnectionOwner) -> None:
        self._server = server
        self.transport: asyncio.Transport | None = None
        self._limits = server.limits
        self._buffer = b""
        """What came and has no reader yet; of much, the first part."""
        self._behind = b""
        """The rest, apart: it is not copied for each request that is read off the front."""
        self._is_half_closed = False
        """Whether the client has sent all that it will."""
        self._write_count = self._writes_seen = 0
        # Per request.
        self.request: Request | None = None
        self._body: Body | None = None
        """That of the request, if it has one."""
        self._sink: BodySink | None = None
        """What reads it."""
        self._keeps_alive = False
        """Whether the connection can serve another request after this one."""
        # Of a response that comes in pieces: what was not sent yet.
        self._head = b""
        self._piece = b""
        self._is_chunked = False

    def inform(self, head: ResponseHead) -> None:
        """See `ClientStream`. HTTP/1.0 knows no interim responses."""
        if self.request is not None and not self.request.is_http_10:
            self._write(render_interim_head(head))

    def respond(self, head: ResponseHead, body: bytes | None, *, closes: bool = False) -> None:
        """See `ClientStream`. What the client still sends of its request is not waited for."""
        request = self.request
        if request is None:
            return
        if closes:
            self._keeps_alive = False
        is_chunked = False
        is_head_request = request.method == "HEAD"
        if head.length is None and head.has_body(is_response_to_head=is_head_request):
            if body is not None:
                # Of an upstream of HTTP/2, which need not say it.
                head = head.with_lines(b"%bContent-Length: %d\r\n" % (head.lines, len(body)))
            elif request.is_http_10:
                # The end of the connection is all that it has here.
                self._keeps_alive = False
            else:
                is_chunked = True
        rendered = render_head(
            head,
            is_chunked=is_chunked,
            is_http_10=request.is_http_10,
            keep_alive=self._settle_keep_alive(),
            request_id=request.request_id,
        )
        if body is None:
            self._head, self._piece, self._is_chunked = rendered, b"", is_chunked
        else:
            self._head = self._piece = b""
            self._write(rendered if is_head_request else rendered + body)

    def _settle_keep_alive(self) -> bool:
        """Decide whether the connection can serve another request, for the head that says so.

        Decided once: a drain that begins after the head was rendered must not close a
        connection on which the client was promised another response.
        """
        if self._body is not None and not self._body.is_complete:
            # A response before the end of the body: what is still coming is no next request.
            self._discard_body()
            self._keeps_alive = self._keeps_alive and self._body.is_complete
        if self._server.is_draining:
            self._keeps_alive = False
        return self._keeps_alive

    def send(self, piece: bytes) -> None:
        self._piece += piece

    def flush(self) -> None:
        out, piece = self._head, self._piece
        if piece:
            self._piece = b""
            out += render_chunk(piece) if self._is_chunked else piece
        if out:
            self._head = b""
            self._write(out)

    def end(self, trailers: Trailers = ()) -> None:
        if self._is_chunked:
            self._is_chunked = False
            if self._piece:
                self._head += render_chunk(self._piece)
                self._piece = b""
            self._head += LAST_CHUNK if not trailers else self._render_end(trailers)
        self.flush()

    def _render_end(self, trailers: Trailers) -> bytes:
        """The last chunk, with the trailers where the client takes them (RFC 9110 section 6.5.1):
        it says so in TE."""
        request = self.request
        if request is None or not request.head.takes_trailers:
            return LAST_CHUNK
        return render_last_chunk(trailers)

    def _write(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._write_count += 1
            transport.write(data)

    def drain(self) -> None:
        """Nothing: the next response asks for it."""

    def reject(self) -> None:
        """Close it with a 503, no request having been read."""
        if self.transport is not None:
            self.transport.write(OVERLOADED)
            self.transport.close()

    def reset(self) -> None:
        transport = self.transport
        if transport is None:
            return
        if self.request is not None and self.request.is_http_10:
            # A body that the end of the connection ends would look whole.
            connected = transport.get_extra_info("socket")
            if connected is not None and connected.family != socket.AF_UNIX:
                # On a copy: the sockets of some event loops set no options.
                with (
                    contextlib.suppress(OSError),
                    socket.socket(fileno=os.dup(connected.fileno())) as copy,
                ):
                    copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    def _discard_body(self) -> None:
        """Throw away what has come of a body without a reader."""
        body = self._body
        if body is not None and self._sink is None and not body.is_complete and self._buffer:
            with contextlib.suppress(BodyFramingError):
                body.feed(self._take_buffer())
                self._buffer = body.rest

    def _take_buffer(self) -> bytes:
        """Remove and return all that came and has no reader yet."""
        data = self._buffer + self._behind
        self._buffer = self._behind = b""
        return data

    def _await_response(self) -> None:
        """Set no deadline, since the client isn't to move, unless it may be gone."""
        if self._is_half_closed:
            self._writes_seen = self._write_count
            self._deadline.set(self._limits.half_close_timeout_s)
        else:
            self._deadline.clear()
