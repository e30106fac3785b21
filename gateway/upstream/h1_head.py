"""Heads of HTTP/1 at an upstream: that of a request on the wire, and that of a response from it."""

from __future__ import annotations

from typing import Final

from gateway.http.errors import UpstreamProtocolError
from gateway.http.response_head import (
    ResponseHead,
    parse_response_head,
    response_of,
    try_read_response,
)
from gateway.upstream.stream import UpstreamRequestHead

MAX_RESPONSE_HEAD_BYTES: Final = 64 * 1024
_NO_RESPONSE: Final = ResponseHead(0, b"")


class ResponseHeadReader:
    """Reads the heads of responses on one connection. Those to the same request mostly begin with
    the same bytes: the last head is kept."""

    __slots__ = ("_block", "head")

    def __init__(self) -> None:
        self._block = b""
        self.head = _NO_RESPONSE
        """The head that was read last."""

    def read(self, data: bytes) -> int:
        """Read the head that `data` begins with, and return where its empty line ends; -1 where
        more of it has to come. Raises `UpstreamProtocolError`."""
        read = try_read_response(data, self._block, max_bytes=MAX_RESPONSE_HEAD_BYTES)
        if read is not None:
            record, end = read
            if record is not None:
                self._block, self.head = data[:end], response_of(record)
            return end + 4
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return -1
        if end > MAX_RESPONSE_HEAD_BYTES:
            raise UpstreamProtocolError("upstream_protocol", "The response's head is too large.")
        block = data[:end]
        if self._block != block or self.head is _NO_RESPONSE:
            self.head = parse_response_head(block)
            self._block = block
        return end + 4


def render_request_head(head: UpstreamRequestHead) -> bytes:
    """The head on the wire, from the request line to the empty line (RFC 9112 section 3)."""
    framing = b""
    if head.is_chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif head.length >= 0:
        framing = b"Content-Length: %d\r\n" % head.length
    if head.upgrade:
        framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    elif head.closes:
        framing += b"Connection: close\r\n"
    elif head.takes_trailers:
        framing += b"TE: trailers\r\nConnection: TE\r\n"
    return b"%bHost: %b\r\n%b%b\r\n" % (head.request_line, head.authority, framing, head.lines)
