"""The head of a request: what it says, and the lines of it that may pass.

A head is read once, into what the gateway needs to know
and the lines that it sends on. Nothing that a client sends can reach the upstream under
a name that the gateway speaks under: those names are dropped in any spelling, on every
route, before the gateway's own are written.

RFC 9112 sections 3 (request line), 6 (framing); RFC 9110 sections 7.2 (Host),
7.6.1 (Connection), 10.1.1 (Expect).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from gateway.codec import RequestCodec
from gateway.codec.records import HeadRecord, LineRecord
from gateway.http.errors import (
    BadRequestError,
    ExpectationFailedError,
    HeadTooLargeError,
    NotImplementedMethodError,
)
from gateway.http.fields import (
    CONNECTION_OPTIONS,
    FORWARDING,
    HOP_BY_HOP,
    IDENTITY,
    MAX_KNOWN_LINE_BYTES,
    MAX_KNOWN_LINES,
    METHOD_OVERRIDES,
    OVERRIDES,
    TOKEN,
    Field,
    FieldSyntaxError,
    KnownLines,
    cgi_name,
    header_values,
    one_protocol,
    parse_field,
    split_list,
    without_fields,
    without_own_cookies,
)
from gateway.http.grpc import CONTENT_TYPE, is_grpc
from gateway.http.target import NO_PATH, RequestTarget, parse_target

# Fields that are read here and rewritten, or dropped.
_INTERPRETED = frozenset(
    {
        b"authorization",
        b"content-length",
        b"expect",
        b"grpc-timeout",
        b"host",
        b"max-forwards",
        b"traceparent",
        b"tracestate",
    }
)
SPECIAL = HOP_BY_HOP | IDENTITY | OVERRIDES | FORWARDING | _INTERPRETED
"""Names of fields that never pass as they came."""

_REQUEST_LINE = re.compile(rb"(%b) ([!-~\x80-\xff]+) HTTP/1\.([0-9])" % TOKEN)
# As much of a request line as may have come: what can't become one need not be waited for.
_BEGINNING = re.compile(
    rb"(?:%b(?: [!-~\x80-\xff]*(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.[0-9]?)?)?)?)?)?)?)?)?)?)?\r?"
    % TOKEN
)
_HOPS = re.compile(rb"[0-9]{1,9}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# What a name in DNS can hold, and `_`. RFC 3986 section 3.2.2 allows more, which others read as
# two hosts (`a,b`) or as another one (`a%2eb`).
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


class _RequestLines(KnownLines):
    def classify(self, lower: bytes, name: bytes, value: bytes) -> Field:
        if lower in SPECIAL:
            return lower, value
        look = cgi_name(lower)
        if look in METHOD_OVERRIDES or look in IDENTITY:
            return lower, value  # never passes; `proxy.decisions` refuses it
        if look in SPECIAL:
            return b"", b""  # a look-alike such as X_Forwarded_For
        if lower == b"cookie" and b"gateway_" in value:
            value = without_own_cookies(value)
            if not value:
                return b"", b""
        return b"", b"%b: %b\r\n" % (name, value)


_CODEC = RequestCodec(SPECIAL)
# The flags of its records.
_CLOSES: Final = 1
_KEEPS_ALIVE: Final = 2
_IS_CHUNKED: Final = 4
_IS_GRPC: Final = 8

_NO_OPTIONS: frozenset[bytes] = frozenset()
_KNOWN_LINES = _RequestLines()


class RequestHead:
    """The parsed field lines of a request. Nothing of it depends on the request line, so
    one head serves all requests of a connection whose lines are the same."""

    __slots__ = (
        "_block", "_raw_fields", "_values", "closes", "fields", "host", "is_chunked", "is_grpc",
        "keeps_alive", "length", "lines", "onward", "takes_trailers", "upgrade",
        "wants_websocket",
    )  # fmt: skip

    def __init__(self, block: bytes, fields: dict[bytes, list[bytes]], lines: bytes) -> None:
        self._block = block
        self._raw_fields: list[Field] | None = None
        self._values: dict[bytes, list[bytes]] | None = None
        self.fields = fields
        """Values by lower-case name, of the fields that the gateway reads itself."""
        self.lines = lines
        """The other fields as they came, each with its line end."""
        self.length = 0
        """Content-Length; 0 where there is none, or chunks."""
        self.is_chunked = False
        self.closes = False
        """Whether Connection says `close`."""
        self.keeps_alive = False
        """Whether Connection says `keep-alive`, which HTTP/1.0 needs."""
        self.wants_websocket = False
        self.upgrade = b""
        """The one protocol that it wants to switch to; empty for none or several."""
        self.takes_trailers = b"te" in fields and b"trailers" in split_list(
            b",".join(fields[b"te"])
        )
        """Whether TE says that the client takes trailers (RFC 9110 section 10.1.4)."""
        self.is_grpc = False
        """Whether it calls a method of gRPC."""
        self.host: tuple[bytes, str] | None = None
        """Host as received, and as routes name it; None where there is none."""
        self.onward: bytes | None = None
        """The lines for the upstream that depend on nothing but this head."""

    def all(self, name: bytes) -> Sequence[bytes]:
        """The values of a field, in order."""
        return self.fields.get(name, ())

    def one(self, name: bytes) -> bytes:
        """The value of a field that may be given once: empty where it is absent or repeated."""
        values = self.fields.get(name, ())
        return values[0] if len(values) == 1 else b""

    def drop_spellings(self, name: bytes, *, keeps_exact: bool) -> None:
        """Keep a field from passing in any spelling, or in any but its own. `name` is
        lower-case."""
        lines = self.lines.splitlines(keepends=True)
        names = [line.partition(b":")[0].lower() for line in lines]
        look = cgi_name(name)
        self.lines = b"".join(
            line
            for line, given in zip(lines, names, strict=True)
            if cgi_name(given) != look or (keeps_exact and given == name)
        )

    def raw_fields(self) -> list[Field]:
        """All fields as they came. Read when they are first asked for, and kept."""
        if self._raw_fields is None:
            lines = self._block.split(b"\r\n") if self._block else []
            self._raw_fields = [parse_field(line) for line in lines]
        return self._raw_fields

    def values(self, name: bytes) -> Sequence[bytes]:
        """The values of any field as they came, in order; `name` is lower-case. All are sorted
        by name when one is first asked for."""
        values = self._values
        if values is None:
            values = self._values = {}
            for given, value in self.raw_fields():
                values.setdefault(given.lower(), []).append(value)
        return values.get(name, ())

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow."""
        return self.is_chunked or self.length > 0

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 Continue before it sends the body."""
        return b"expect" in self.fields


class RequestLine:
    """The first line of a request. Immutable."""

    __slots__ = ("_raw_target", "is_http_10", "method", "onward", "target")

    def __init__(
        self,
        method: str,
        target: RequestTarget,
        is_http_10: bool,
        onward: bytes,
        raw_target: str | None = None,
    ) -> None:
        """`raw_target` is the target as it came, where that is not its canonical form."""
        self.method: Final = method
        self.target: Final = target
        self.is_http_10: Final = is_http_10
        self.onward: Final = onward
        """The line for the upstream, where the route does not rewrite the path."""
        self._raw_target: Final = raw_target

    @property
    def raw_target(self) -> str:
        """The target as it came; only for who can't rewrite what another forwards
        (`proxy.decisions`)."""
        raw = self._raw_target
        return self.target.path + self.target.query if raw is None else raw


def read_request_line(line: bytes) -> RequestLine:
    """Read the first line. Raises `BadRequestError` for one that is malformed or ambiguous."""
    record = _CODEC.read_line(line)
    return parse_request_line(line) if record is None else line_of(record)


def line_of(record: LineRecord) -> RequestLine:
    """Return the request line that the codec read."""
    method, path, query, is_http_10, onward = record
    return RequestLine(method, RequestTarget(path, query), is_http_10, onward)


def parse_request_line(line: bytes) -> RequestLine:
    """Read the first line in Python: the definition of what `read_request_line` returns."""
    known = _KNOWN_REQUEST_LINES.get(line)
    if known is None:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise malformed()
        method, raw_target, minor = match.groups()
        if method != method.upper():
            # `post` is no POST to routes, but to whatever is behind them it may be.
            raise BadRequestError("method", "The method is not in upper case.")
        raw = raw_target.decode("latin-1")
        target = _read_target(method, raw)
        # A higher minor version is read as 1.1 (RFC 9110 section 2.5).
        if minor == b"1" and target.path + target.query == raw:
            onward = line + b"\r\n"
        else:
            path = f"{target.path}{target.query}".encode("ascii")
            onward = b"%b %b HTTP/1.1\r\n" % (method, path)
        known = RequestLine(method.decode("ascii"), target, minor == b"0", onward, raw)
        # A query mostly comes once, and may hold what should not stay in memory.
        if len(line) <= MAX_KNOWN_LINE_BYTES and b"?" not in line:
            if len(_KNOWN_REQUEST_LINES) >= MAX_KNOWN_LINES:
                _KNOWN_REQUEST_LINES.clear()
            _KNOWN_REQUEST_LINES[line] = known
    return known


def _read_target(method: bytes, raw: str) -> RequestTarget:
    if method == b"OPTIONS":
        # About the server as a whole (RFC 9112 section 3.2.4).
        if raw == "*":
            return RequestTarget("*", "")
        if whole := NO_PATH.fullmatch(raw):
            return RequestTarget("*", "", whole[1])
    if method == b"CONNECT":  # rejected, whatever it names
        return RequestTarget(raw.partition("?")[0] if raw.isascii() else "", "")
    return parse_target(raw)


_KNOWN_REQUEST_LINES: dict[bytes, RequestLine] = {}


def skip_empty_lines(data: bytes) -> bytes:
    """The data without the empty lines before a request line (RFC 9112 section 2.2)."""
    at = 0
    while data.startswith(b"\r\n", at):
        at += 2
    return data[at:]


def can_become_a_head(data: bytes) -> bool:
    """Whether a head that has not ended yet can still become one."""
    line, line_end, _ = data.partition(b"\r\n")
    if line_end:
        return _REQUEST_LINE.fullmatch(line) is not None
    return _BEGINNING.fullmatch(line) is not None


def read_request(
    data: bytes, line: RequestLine, known: bytes, *, max_fields: int, max_bytes: int
) -> tuple[LineRecord | None, HeadRecord | None, int] | None:
    """Read the head that `data` begins with by the codec: its line, its fields, and where it ends,
    its empty line included. `line` and `known`, a block of fields, are of a head that it read
    before; of what is the same again, the record is None. None for all where Python has to read
    it, or more has to come."""
    # The line of HTTP/1.0 goes on as that of HTTP/1.1, which is another one.
    known_line = b"" if line.is_http_10 else line.onward
    return _CODEC.read(data, known_line, known, max_fields, max_bytes)


def read_request_fields(
    fields: Sequence[Field],
    known_line: bytes,
    known_block: bytes | None,
    *,
    max_fields: int,
    max_bytes: int,
) -> tuple[LineRecord | None, HeadRecord | None] | None:
    """Read the fields of a request of HTTP/2 by the codec. Of what is known, a request line
    and a block of lines, the record is None. None for all where `downstream.h2_head` has to read
    them in Python, also where they are too many or too large."""
    return _CODEC.read_h2(fields, known_line, known_block, max_fields, max_bytes)


def read_request_head(
    block: bytes, *, max_fields: int, kept: dict[bytes, Field] | None = None
) -> RequestHead:
    """Read the field lines of a request, without the empty line that ends them. `kept` is
    where a connection keeps its last Authorization line, which `KnownLines` does not.

    Raises `BadRequestError`, `HeadTooLargeError`, `ExpectationFailedError` and
    `NotImplementedMethodError`.
    """
    record = _CODEC.read_fields(block, max_fields)
    if record is not None:
        return head_of(record)
    return parse_request_head(block, max_fields=max_fields, kept=kept)


def head_of(record: HeadRecord) -> RequestHead:
    """Return the head that the codec read."""
    block, fields, lines, flags, length, host = record
    head = RequestHead(block, fields, lines)
    if flags:
        head.closes = flags & _CLOSES != 0
        head.keeps_alive = flags & _KEEPS_ALIVE != 0
        head.is_chunked = flags & _IS_CHUNKED != 0
        head.is_grpc = flags & _IS_GRPC != 0
    head.length = length
    head.host = host
    return head


def parse_request_head(
    block: bytes, *, max_fields: int, kept: dict[bytes, Field] | None = None
) -> RequestHead:
    """Read field lines in Python: the definition of what `read_request_head` returns."""
    lines = block.split(b"\r\n") if block else []
    if len(lines) > max_fields:
        raise HeadTooLargeError("head_too_large", "The request head has too many fields.")
    fields: dict[bytes, list[bytes]] = {}
    passing: list[bytes] = []
    known = _KNOWN_LINES
    try:
        for line in lines:
            field = known.get(line)
            if field is None:
                field = _read_unknown(line, kept)
            name, text = field
            if name:
                fields.setdefault(name, []).append(text)
            else:
                passing.append(text)
    except FieldSyntaxError:
        raise malformed() from None
    if b"max-forwards" in fields:
        passing += [_count_down(value) for value in fields[b"max-forwards"]]
    options = _NO_OPTIONS
    if b"connection" in fields:
        options = split_list(b",".join(fields[b"connection"]))
        if not options <= CONNECTION_OPTIONS:
            passing = without_fields(passing, options)
    head = RequestHead(block, fields, b"".join(passing))
    head.is_grpc = CONTENT_TYPE in block and any(
        is_grpc(value) for value in header_values(head.raw_fields(), b"content-type")
    )
    head.closes = b"close" in options
    head.keeps_alive = b"keep-alive" in options
    _read_framing(head)
    if b"expect" in fields and head.one(b"expect").lower() != b"100-continue":
        raise ExpectationFailedError("expectation", "Only 100-continue can be expected.")
    if b"host" in fields:
        host = head.one(b"host")
        # Empty where the target has no authority (RFC 9112 section 3.2).
        head.host = host, routing_host(host) if fields[b"host"] != [b""] else ""
    if b"upgrade" in options and not head.has_body:
        offered = head.all(b"upgrade")
        head.wants_websocket = b"websocket" in split_list(b",".join(offered))
        head.upgrade = one_protocol(offered)
    return head


def _count_down(hops: bytes) -> bytes:
    """The line of Max-Forwards for the upstream (RFC 9110 section 7.6.2). Of methods other than
    OPTIONS, too, so that a head can be read without its request line."""
    if _HOPS.fullmatch(hops):
        hops = b"%d" % max(0, int(hops) - 1)
    return b"Max-Forwards: %b\r\n" % hops


def _read_unknown(line: bytes, kept: dict[bytes, Field] | None) -> Field:
    if kept is None:
        return _KNOWN_LINES[line]
    field = kept.get(line)
    if field is None:
        field = _KNOWN_LINES[line]
        if field[0] == b"authorization":
            kept.clear()
            kept[line] = field
    return field


def _read_framing(head: RequestHead) -> None:
    codings, lengths = head.all(b"transfer-encoding"), head.all(b"content-length")
    if codings:
        if lengths or len(codings) > 1:
            # RFC 9112 section 6.1: the sender did not know what the other side
            # would understand, and another reader may see the message end elsewhere.
            raise BadRequestError(
                "framing", "Ambiguous message framing (Content-Length and Transfer-Encoding)."
            )
        if codings[0].lower() != b"chunked":
            # A coding is a hop's own affair: passing the body on undecoded, without the
            # field that names its coding, would corrupt it.
            raise NotImplementedMethodError(
                "transfer_coding", "Only the chunked transfer coding is supported."
            )
        head.is_chunked = True
    elif lengths:
        if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
            raise malformed()
        head.length = int(lengths[0])


def is_host(value: bytes) -> bool:
    """Whether a value is `uri-host [":" port]`."""
    return _HOST.fullmatch(value) is not None


@lru_cache(maxsize=256)
def routing_host(host: bytes) -> str:
    """A host as routes name it: lower-case, without port and trailing dot.

    Raises `BadRequestError` for one that is not `uri-host [":" port]`.
    """
    if not is_host(host):
        raise BadRequestError("host", "The Host header is not valid.")
    name = host.decode("ascii").lower()
    if not name.endswith("]"):
        name = name.rpartition(":")[0] or name
    return name.rstrip(".")


def malformed() -> BadRequestError:
    """The error for what is not HTTP. Says nothing of what is in it."""
    return BadRequestError("malformed", "The request is not valid HTTP/1.1.")
