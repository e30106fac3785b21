"""Heads of HTTP/2: a request from its fields, and the fields of a response.

The fields become the lines that HTTP/1 has, and are read by the same readers: a request means the
same whatever it came by, and what would smuggle another one to an upstream on HTTP/1 is rejected
here. The engine rejects much of it before; nothing here relies on that.

RFC 9113 sections 8.2 (fields), 8.2.3 (cookies), 8.3 (pseudo-fields), 8.5 (CONNECT).
"""

from __future__ import annotations

from gateway.downstream.request import NO_HEAD, NO_LINE, Peer, Request
from gateway.downstream.stream import ClientLimits
from gateway.http.errors import (
    BadRequestError,
    HeadTooLargeError,
    NotImplementedMethodError,
    ProblemError,
)
from gateway.http.fields import (
    HOP_BY_HOP,
    Field,
    KnownLines,
    RawHeaders,
    Trailers,
    passing_trailers,
)
from gateway.http.h2 import Fields
from gateway.http.request_head import RequestHead, RequestLine, read_request_head, read_request_line
from gateway.http.response_head import ResponseHead
from gateway.http.target import RequestTarget

_CONNECTION_FIELDS = (
    b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade",
)  # fmt: skip
"""RFC 9113 section 8.2.2."""
_CONNECT = RequestLine("CONNECT", RequestTarget("", ""), is_http_10=False, onward=b"")
_STATUSES = {status: b"%d" % status for status in range(100, 600)}


class RequestReader:
    """Reads the heads of requests on one connection. Clients mostly send the same fields in every
    request: the last head is kept, with all that was found out about it."""

    def __init__(self, peer: Peer, limits: ClientLimits) -> None:
        self._peer = peer
        self._limits = limits
        self._kept_lines: dict[bytes, Field] = {}
        self._known: tuple[bytes, bool, RequestHead] = b"", False, NO_HEAD

    def read(self, fields: RawHeaders, *, ends: bool) -> Request:
        """Read a request; `ends` where it has no body. Of one that is malformed, `error` says
        why."""
        line = NO_LINE
        try:
            pseudo, lines = self._sort(fields)
            method = pseudo.get(b":method", b"")
            if method == b"CONNECT":
                line = _CONNECT
                raise NotImplementedMethodError("connect", "This gateway is not a forward proxy.")
            path = pseudo.get(b":path", b"")
            if not path.startswith(b"/") and path != b"*":
                raise malformed()
            line = read_request_line(b"%b %b HTTP/1.1" % (method, path))
            return Request(line, self._read_head(pseudo, lines, ends=ends), self._peer)
        except ProblemError as error:
            return Request(line, NO_HEAD, self._peer, error)

    def _sort(self, fields: RawHeaders) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Return pseudo-fields, and the others as lines."""
        pseudo: dict[bytes, bytes] = {}
        lines: list[bytes] = []
        hosts: list[bytes] = []
        crumbs: list[bytes] = []
        for name, value in fields:
            if name.startswith(b":"):
                if lines or crumbs or hosts or name in pseudo:
                    raise malformed()
                pseudo[name] = value
            elif name == b"cookie":
                crumbs.append(value)
            elif name == b"host":
                hosts.append(value)
            else:
                lines.append(b"%b: %b" % (name, value))
        self._check_size(fields, len(pseudo))
        if pseudo.get(b":scheme", b"http") not in (b"http", b"https") or len(hosts) > 1:
            raise malformed()
        authority = pseudo.get(b":authority")
        if authority is not None:
            if hosts and hosts[0].lower() != authority.lower():
                raise BadRequestError("host", "Host is not the authority of the request.")
            hosts = [authority]
        if hosts:
            lines.append(b"host: %b" % hosts[0])
        if crumbs:
            lines.append(b"cookie: %b" % b"; ".join(crumbs))
        return pseudo, lines

    def _check_size(self, fields: RawHeaders, pseudo_fields: int) -> None:
        """Cookies count as they came, one by one (RFC 9113 section 8.2.3 splits them)."""
        if len(fields) - pseudo_fields > self._limits.headers:
            raise HeadTooLargeError("head_too_large", "The request head has too many fields.")
        # With `: ` and line end, as in HTTP/1.
        if sum(len(name) + len(value) + 4 for name, value in fields) > self._limits.head_bytes:
            raise HeadTooLargeError("head_too_large", "The request head is too large.")

    def _read_head(
        self, pseudo: dict[bytes, bytes], lines: list[bytes], *, ends: bool
    ) -> RequestHead:
        block = b"\r\n".join(lines)
        known = self._known
        if known[0] == block and known[1] == ends:
            return known[2]
        if block.count(b"\n") >= max(len(lines), 1):
            raise malformed()  # a line end in a value
        head = read_request_head(block, max_fields=len(lines), kept=self._kept_lines)
        if any(name in head.fields for name in _CONNECTION_FIELDS):
            raise malformed()
        if any(value.lower() != b"trailers" for value in head.all(b"te")):
            raise malformed()
        if ends:
            if head.length:
                raise malformed()
        elif b"content-length" not in head.fields:
            head.is_chunked = True
        peer = self._peer
        if peer.certificate_header:
            # The upstream may believe this field, too.
            head.drop_spellings(peer.certificate_header, keeps_exact=peer.is_trusted)
        self._known = block, ends, head
        return head


def malformed() -> BadRequestError:
    """The error for what is not HTTP/2 (RFC 9113 section 8.1.1). Says nothing of what is in it."""
    return BadRequestError("malformed", "The request is not valid HTTP/2.")


class _ResponseFields(KnownLines):
    def classify(self, lower: bytes, name: bytes, value: bytes) -> Field:
        return (b"", b"") if lower in HOP_BY_HOP else (lower, value)


_KNOWN_FIELDS = _ResponseFields()


def response_fields(head: ResponseHead, request_id: bytes) -> Fields:
    """Return the fields of a response, interim ones included; `request_id` may be empty."""
    fields: list[Field] = [(b":status", _STATUSES[head.status])]
    known = _KNOWN_FIELDS
    for line in head.lines.split(b"\r\n"):
        if line:
            field = known[line]
            if field[0]:
                fields.append(field)
    if request_id:
        fields.append((b"x-request-id", request_id))
    return tuple(fields)


def trailer_fields(fields: RawHeaders) -> Trailers:
    """Return the trailers of a request that may pass; never a pseudo-field."""
    named = ((name.lower(), value) for name, value in fields if not name.startswith(b":"))
    return passing_trailers(tuple(named))
