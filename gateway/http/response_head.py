"""The head of a response: what the upstream's says, and what of it the client gets.

A head is a value with two forms, each made from the other only when it is asked for: the lines of
its fields, as HTTP/1 writes them, and the list of them. What frames a message (Connection,
Transfer-Encoding) is in neither: it belongs to a connection, and is decided by the writer of the
head there.

RFC 9112 sections 4 (status line) and 6 (framing); RFC 9110 section 7.6.1: what belongs to the
upstream's connection stays there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from gateway.codec import ResponseCodec
from gateway.codec.records import ResponseRecord
from gateway.http.errors import REASON_PHRASES, Headers, UpstreamProtocolError
from gateway.http.fields import (
    CONNECTION_OPTIONS,
    HOP_BY_HOP,
    OWN_COOKIES,
    Field,
    FieldSyntaxError,
    KnownLines,
    one_protocol,
    parse_field,
    set_cookie_name,
    split_list,
    without_fields,
)

NO_CONTENT: Final = 204
BODILESS: Final = frozenset({NO_CONTENT, 304})
"""Final statuses whose responses have no body (RFC 9110 section 6.4.1)."""

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9]{2})(?: ([\t -~\x80-\xff]*))?")
_PHRASES = {status: phrase.encode("ascii") for status, phrase in REASON_PHRASES.items()}
_STATUS = re.compile(rb"[1-5][0-9]{2}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# The request id is set by the gateway; an echo of it would stand there twice.
_DROPPED = frozenset({b"x-request-id"})
# These act on all that is on the host, beyond the application: its cookies, those of the sign-in
# pages, and the requests to them. They pass where a route says so.
_WHOLE_HOST = {
    b"clear-site-data": b"Clear-Site-Data", b"service-worker-allowed": b"Service-Worker-Allowed",
}  # fmt: skip
_READ = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_KEEP_ALIVE = re.compile(rb"(?:^|,)[ \t]*timeout=([0-9]{1,9})[ \t]*(?:,|$)", re.IGNORECASE)
_KEEP_ALIVE_MARGIN_S = 1.0
"""How much earlier than the upstream an idle connection is given up: a request may be on its way
when the upstream closes."""
UPGRADE_REQUIRED = 426
CODEC_NAMES = (HOP_BY_HOP | _DROPPED) - _READ, frozenset({*_WHOLE_HOST, b"upgrade"}), _PHRASES
"""What the codec has to know: fields that do not pass, those that it leaves to Python, and the
usual reason phrases."""
_CODEC = ResponseCodec(*CODEC_NAMES)
# The flags of its records.
_KEEPS_ALIVE: Final = 2
_IS_CHUNKED: Final = 4
_HAS_DATE: Final = 16


class _ResponseLines(KnownLines):
    def classify(self, lower: bytes, name: bytes, value: bytes) -> Field:
        if lower in _READ or lower in _WHOLE_HOST:
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
        "_fields", "first_lines", "has_date", "is_chunked", "keepalive_s",
        "keeps_alive", "length", "lines", "status", "upgrade", "withheld",
    )  # fmt: skip

    def __init__(self, status: int, lines: bytes) -> None:
        self.status = status
        self.lines = lines
        """The fields that may pass, each with its line end."""
        self.has_date = True
        self.first_lines = b""
        """What HTTP/1 begins this head with, where that is not the usual status line: another
        reason phrase, or the protocols that a 426 offers."""
        self.keepalive_s = 0.0
        """How long the upstream's connection may idle, as the upstream says; 0 if it does not."""
        self._fields: list[Field] | None = None
        self.length: int | None = None
        """Content-Length, where it is given."""
        self.is_chunked = False
        self.keeps_alive = False
        """Whether the upstream's connection can carry another exchange."""
        self.upgrade = b""
        """The one protocol that Upgrade names; empty for none or several."""
        self.withheld = b""
        """Lines of fields that act on the whole host; they pass where a route says so."""

    @property
    def fields(self) -> list[Field]:
        """The fields that may pass, names and values."""
        if self._fields is None:
            self._fields = [parse_field(line) for line in self.lines.split(b"\r\n")[:-1]]
        return self._fields

    @property
    def media_type(self) -> bytes:
        """Of Content-Type, in lower case, without parameters; empty where there is none."""
        value = next((value for name, value in self.fields if name.lower() == b"content-type"), b"")
        return value.partition(b";")[0].strip().lower()

    def with_lines(self, lines: bytes) -> ResponseHead:
        """The same head, but for its lines."""
        head = ResponseHead(self.status, lines)
        head.length, head.is_chunked = self.length, self.is_chunked
        head.keeps_alive, head.upgrade = self.keeps_alive, self.upgrade
        head.keepalive_s, head.first_lines = self.keepalive_s, self.first_lines
        head.withheld = self.withheld
        return head

    def dated(self) -> ResponseHead:
        """The same head with a Date: a recipient that has a clock adds one (RFC 9110 section
        6.6.1)."""
        return self if self.has_date else self.with_lines(self.lines + _date_line())

    def replacing(self, fields: Headers) -> ResponseHead:
        """The same head with these fields in place of those of the same names."""
        names = frozenset(name.lower().encode() for name, _ in fields)
        kept = without_fields(self.lines.splitlines(keepends=True), names)
        return self.with_lines(b"".join((*kept, render_fields(fields))))

    def has_body(self, *, is_response_to_head: bool) -> bool:
        """Whether a body follows (RFC 9112 section 6.3)."""
        return not is_response_to_head and self.status >= 200 and self.status not in BODILESS


def make_response_head(status: int, fields: Headers, *, length: int) -> ResponseHead:
    """The head of a response that the gateway makes, whose body has `length` bytes."""
    head = ResponseHead(status, b"")
    head.length = length
    lines = _date_line() + render_fields(fields)
    if status != NO_CONTENT:  # RFC 9110 section 8.6
        lines += b"Content-Length: %d\r\n" % length
    head.lines = lines
    return head


def _date_line() -> bytes:
    return f"Date: {http_date(int(time.time()))}\r\n".encode("ascii")


def render_fields(fields: Headers) -> bytes:
    """Lines of fields."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """A time as Date gives it, UTC."""
    return formatdate(second, usegmt=True)


def read_response_head(block: bytes) -> ResponseHead:
    """Read a head without the empty line that ends it. Raises `UpstreamProtocolError`."""
    record = _CODEC.read_head(block)
    return parse_response_head(block) if record is None else response_of(record)


def try_read_response(
    data: bytes, known: bytes, *, max_bytes: int
) -> tuple[ResponseRecord | None, int] | None:
    """Read the head that `data` begins with by the codec: what it says, None where that is `known`,
    the bytes of a head that was read before; and where it ends, but for its empty line. None for
    all where Python has to read it, or more has to come."""
    return _CODEC.read(data, known, max_bytes)


def response_of(record: ResponseRecord) -> ResponseHead:
    """Return the head that the codec read."""
    status, lines, length, flags, keep_alive = record
    head = ResponseHead(status, lines)
    head.keeps_alive = flags & _KEEPS_ALIVE != 0
    head.is_chunked = flags & _IS_CHUNKED != 0
    head.has_date = flags & _HAS_DATE != 0
    if length >= 0:
        head.length = length
    if keep_alive is not None and head.keeps_alive:
        _read_keep_alive(head, b",".join(keep_alive))
    if status == NO_CONTENT and (head.is_chunked or length > 0):
        head.keeps_alive = False  # as below
    return head


def parse_response_head(block: bytes) -> ResponseHead:
    """Read a head in Python: the definition of what `read_response_head` returns."""
    status_line, *lines = block.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise _not_http()
    status = int(match[2])
    fields: dict[bytes, list[bytes]] = {}
    passing: list[bytes] = []
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
    head.upgrade = one_protocol(fields.get(b"upgrade", ()))
    head.has_date = b"\r\nDate:" in block or b"\r\ndate:" in block.lower()
    phrase = match[3]
    if (phrase and phrase != _PHRASES.get(status)) or status == UPGRADE_REQUIRED:
        head.first_lines = _first_lines(status, phrase or b"", fields.get(b"upgrade", []))
    if head.keeps_alive and b"keep-alive" in fields:
        _read_keep_alive(head, b",".join(fields[b"keep-alive"]))
    _read_framing(head, fields, is_http_10=is_http_10)
    for lower, name in _WHOLE_HOST.items():
        for value in fields.get(lower, ()):
            head.withheld += b"%b: %b\r\n" % (name, value)
    if status == 204 and (head.is_chunked or head.length):
        head.keeps_alive = False  # a body may follow all the same, when the peer does not expect it
    if head.length is not None and status >= 200 and status != 204:
        passing.append(b"Content-Length: %d\r\n" % head.length)
    head.lines = b"".join(passing)
    return head


def _first_lines(status: int, phrase: bytes, offered: list[bytes]) -> bytes:
    """A status line with its own phrase, and the protocols that a 426 offers (RFC 9110 section
    15.5.22)."""
    line = b"HTTP/1.1 %d %b\r\n" % (status, phrase.strip() or _PHRASES.get(status, b""))
    if status != UPGRADE_REQUIRED or not offered:
        return line
    return b"%bUpgrade: %b\r\nConnection: Upgrade\r\n" % (line, b", ".join(offered))


def _read_keep_alive(head: ResponseHead, value: bytes) -> None:
    timeout = _KEEP_ALIVE.search(value)
    if timeout is not None:
        head.keepalive_s = int(timeout[1]) - _KEEP_ALIVE_MARGIN_S
        if head.keepalive_s <= 0:
            head.keeps_alive = False


def read_response_fields(fields: Sequence[Field]) -> ResponseHead:
    """Read a head of HTTP/2, whose syntax was checked. Raises `UpstreamProtocolError`."""
    record = _CODEC.read_h2(fields)
    return parse_response_fields(fields) if record is None else response_of(record)


def parse_response_fields(fields: Sequence[Field]) -> ResponseHead:
    """Read a head of HTTP/2 in Python: the definition of what `read_response_fields` returns."""
    status = b""
    length: int | None = None
    withheld = b""
    passing: list[bytes] = []
    known = _KNOWN_LINES
    for name, value in fields:
        if name == b":status":
            status = value
            continue
        try:
            read, text = known[b"%b: %b" % (name, value)]
        except FieldSyntaxError:
            raise _not_http() from None
        if not read:
            passing.append(text)
        elif read == b"content-length" and _LENGTH.fullmatch(text):
            length = int(text)
        elif read in _WHOLE_HOST:
            withheld += b"%b: %b\r\n" % (_WHOLE_HOST[read], text)
    if not _STATUS.fullmatch(status):
        raise _not_http()
    head = ResponseHead(int(status), b"")
    head.length, head.withheld = length, withheld
    head.has_date = any(name == b"date" for name, _ in fields)
    if length is not None and head.status >= 200 and head.status != NO_CONTENT:
        passing.append(b"Content-Length: %d\r\n" % length)
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
        # The same length several times is one length (RFC 9112 section 6.3).
        values = {value.strip() for value in b",".join(lengths).split(b",")}
        length = values.pop()
        if values or not _LENGTH.fullmatch(length):
            raise _not_http()
        head.length = int(length)


def _not_http() -> UpstreamProtocolError:
    return UpstreamProtocolError("upstream_protocol", "The upstream's response is not valid HTTP.")
