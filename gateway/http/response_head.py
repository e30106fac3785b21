"""The head of a response: what the upstream's says, and what of it the client gets.

RFC 9112 sections 4 (status line) and 6 (framing, which belongs to a connection, so it is
decided again for the client's); RFC 9110 section 7.6.1: what belongs to the upstream's
connection stays there.
"""

from __future__ import annotations

import re

from gateway.http.errors import REASON_PHRASES, Headers, UpstreamProtocolError
from gateway.http.fields import (
    CONNECTION_OPTIONS,
    HOP_BY_HOP,
    OWN_COOKIES,
    Field,
    FieldSyntaxError,
    KnownLines,
    set_cookie_name,
    split_list,
    without_fields,
)

BODILESS = frozenset({204, 304})
"""Final statuses whose responses have no body (RFC 9110 section 6.4.1)."""

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*)?")
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, REASON_PHRASES.get(status, "").encode())
    for status in range(100, 600)
}
_LENGTH = re.compile(rb"[0-9]{1,18}")
# The request id is set by the gateway; an echo of it would stand there twice.
_DROPPED = frozenset({b"x-request-id"})
_READ = frozenset({b"connection", b"content-length", b"transfer-encoding", b"upgrade"})


class _ResponseLines(KnownLines):
    def classify(self, lower: bytes, name: bytes, value: bytes) -> Field:
        if lower in _READ:
            return lower, value
        if lower in HOP_BY_HOP or lower in _DROPPED:
            return b"", b""
        if lower == b"set-cookie" and set_cookie_name(value) in OWN_COOKIES:
            return b"", b""
        return b"", b"%b: %b\r\n" % (name, value)


_KNOWN_LINES = _ResponseLines()


class ResponseHead:
    """The parsed head of a response. The same bytes always say the same."""

    __slots__ = (
        "is_chunked", "is_websocket", "keeps_alive", "length", "lines", "status",
    )  # fmt: skip

    def __init__(self, status: int, lines: bytes) -> None:
        self.status = status
        self.lines = lines
        """The status line and the fields that may pass, each with its line end."""
        self.length: int | None = None
        """Content-Length, where it is given."""
        self.is_chunked = False
        self.keeps_alive = False
        """Whether the upstream's connection can carry another exchange."""
        self.is_websocket = False
        """Whether Upgrade names a WebSocket and nothing else."""

    def with_lines(self, lines: bytes) -> ResponseHead:
        """The same head, but for its lines."""
        head = ResponseHead(self.status, lines)
        head.length, head.is_chunked = self.length, self.is_chunked
        head.keeps_alive, head.is_websocket = self.keeps_alive, self.is_websocket
        return head

    def has_body(self, *, is_response_to_head: bool) -> bool:
        """Whether a body follows (RFC 9112 section 6.3)."""
        return not is_response_to_head and self.status >= 200 and self.status not in BODILESS


def read_response_head(block: bytes) -> ResponseHead:
    """Read a head without the empty line that ends it. Raises `UpstreamProtocolError`."""
    status_line, *lines = block.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise _not_http()
    status = int(match[2])
    fields: dict[bytes, list[bytes]] = {}
    passing = [_STATUS_LINES[status]]
    known = _KNOWN_LINES
    try:
        for line in lines:
            name, text = known[line]
            if name:
                fields.setdefault(name, []).append(text)
            else:
                passing.append(text)
    except FieldSyntaxError:
        raise _not_http() from None
    options = split_list(b",".join(fields.get(b"connection", ())))
    if not options <= CONNECTION_OPTIONS:
        passing = without_fields(passing, options)
    head = ResponseHead(status, b"")
    is_http_10 = match[1] == b"0"
    head.keeps_alive = b"close" not in options and (not is_http_10 or b"keep-alive" in options)
    head.is_websocket = [value.lower() for value in fields.get(b"upgrade", ())] == [b"websocket"]
    _read_framing(head, fields, is_http_10=is_http_10)
    if status == 204 and (head.is_chunked or head.length):
        head.keeps_alive = False  # a body may follow all the same, when the peer does not expect it
    if head.length is not None and status >= 200 and status != 204:
        passing.append(b"Content-Length: %d\r\n" % head.length)
    head.lines = b"".join(passing)
    return head


def _read_framing(
    head: ResponseHead, fields: dict[bytes, list[bytes]], *, is_http_10: bool
) -> None:
    codings, lengths = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if codings:
        if lengths or is_http_10 or [coding.lower() for coding in codings] != [b"chunked"]:
            raise _not_http()
        head.is_chunked = True
    elif lengths:
        if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
            raise _not_http()
        head.length = int(lengths[0])


def render_head(
    head: ResponseHead,
    *,
    is_chunked: bool,
    is_http_10: bool,
    keep_alive: bool,
    request_id: bytes,
    extra_fields: Headers = (),
) -> bytes:
    """Render the head for the client, with its framing and whether its connection stays open.

    `extra_fields` stand in place of the upstream's of these names.
    """
    framing = b"Transfer-Encoding: chunked\r\n" if is_chunked else b""
    if not keep_alive:
        framing += b"Connection: close\r\n"
    elif is_http_10:
        framing += b"Connection: keep-alive\r\n"
    lines = head.lines
    if extra_fields:
        lines = _replace_fields(lines, extra_fields)
    return b"%b%bX-Request-Id: %b\r\n\r\n" % (lines, framing, request_id)


def _replace_fields(lines: bytes, fields: Headers) -> bytes:
    names = frozenset(name.lower().encode() for name, _ in fields)
    status_line, *kept = lines.splitlines(keepends=True)
    added = (f"{name}: {value}\r\n".encode("latin-1") for name, value in fields)
    return b"".join((status_line, *without_fields(kept, names), *added))


def render_interim_head(head: ResponseHead) -> bytes:
    """A 1xx head for the client; it has no body (RFC 9110 section 15.2)."""
    return head.lines + b"\r\n"


def render_switch_head(head: ResponseHead, request_id: bytes) -> bytes:
    """The 101 head of a WebSocket (RFC 6455 section 4.2.2) for the client."""
    status_line, lines = head.lines.split(b"\r\n", 1)
    return (b"%b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%bX-Request-Id: %b\r\n\r\n") % (
        status_line,
        lines,
        request_id,
    )


def _not_http() -> UpstreamProtocolError:
    return UpstreamProtocolError("upstream_protocol", "The upstream's response is not valid HTTP.")
