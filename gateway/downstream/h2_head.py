"""Heads of HTTP/2: a request from its fields, and the fields of a response.

The fields become the lines that HTTP/1 has, and are read by the same readers: a request means the
same whatever it came by, and what would smuggle another one to an upstream on HTTP/1 is rejected
here. The engine rejects much of it before; nothing here relies on that.

RFC 9113 sections 8.2 (fields), 8.2.3 (cookies), 8.3 (pseudo-fields), 8.5 (CONNECT).
"""

from __future__ import annotations

import re

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
    RawHeaders,
    Trailers,
    passing_trailers,
)
from gateway.http.h2 import Fields
from gateway.http.h2_fields import FieldLister
from gateway.http.request_head import (
    RequestHead,
    RequestLine,
    head_of,
    line_of,
    read_request_fields,
    read_request_head,
    read_request_line,
)
from gateway.http.response_head import ResponseHead
from gateway.http.target import RequestTarget

_CONNECTION_FIELDS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""RFC 9113 section 8.2.2."""
_PSEUDO_FIELDS = frozenset({b":method", b":scheme", b":authority", b":path"})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
"""Of a field, in lower case (RFC 9113 section 8.2.1)."""
_CONNECT = RequestLine("CONNECT", RequestTarget("", ""), is_http_10=False, onward=b"")
_STATUSES = {status: b"%d" % status for status in range(100, 600)}
RESPONSE_LISTER = FieldLister(HOP_BY_HOP)
"""Lists the fields of responses, but for those of the upstream's connection."""


class RequestReader:
    """Reads the heads of requests on one connection. Clients mostly send the same fields in every
    request: the last head is kept, with all that was found out about it."""

    def __init__(self, peer: Peer, limits: ClientLimits) -> None:
        self._peer = peer
        self._max_fields = limits.headers
        self._max_bytes = limits.head_bytes
        self._kept_lines: dict[bytes, Field] = {}
        self._line = NO_LINE
        """The last one that the codec read."""
        self._known: tuple[bytes, bool, RequestHead] = b"", False, NO_HEAD

    def read(self, fields: RawHeaders, *, ends: bool) -> Request:
        """Read a request; `ends` where it has no body. Of one that is malformed, `error` says
        why."""
        known_block, known_ends, head = self._known
        record = read_request_fields(
            fields,
            self._line.onward,
            known_block if ends == known_ends else None,
            max_fields=self._max_fields,
            max_bytes=self._max_bytes,
        )
        if record is None:
            return self._parse(fields, ends=ends)
        line_record, head_record = record
        if line_record is not None:
            self._line = line_of(line_record)
        if head_record is not None:
            head = head_of(head_record)
            try:
                self._check(head, ends=ends)
            except ProblemError as error:
                return Request(self._line, NO_HEAD, self._peer, error)
            self._known = head_record[0], ends, head
        return Request(self._line, head, self._peer)

    def _parse(self, fields: RawHeaders, *, ends: bool) -> Request:
        line = NO_LINE
        try:
            pseudo, lines = sort_fields(
                fields, max_fields=self._max_fields, max_bytes=self._max_bytes
            )
            method = pseudo.get(b":method", b"")
            if method == b"CONNECT":
                line = _CONNECT
                raise NotImplementedMethodError("connect", "This gateway is not a forward proxy.")
            path = pseudo.get(b":path", b"")
            if not path.startswith(b"/") and path != b"*":
                raise malformed()
            line = read_request_line(b"%b %b HTTP/1.1" % (method, path))
            return Request(line, self._parse_head(lines, ends=ends), self._peer)
        except ProblemError as error:
            return Request(line, NO_HEAD, self._peer, error)

    def _parse_head(self, lines: list[bytes], *, ends: bool) -> RequestHead:
        block = b"\r\n".join(lines)
        known = self._known
        if known[0] == block and known[1] == ends:
            return known[2]
        if block.count(b"\n") >= max(len(lines), 1):
            raise malformed()  # a line end in a value
        head = read_request_head(block, max_fields=len(lines), kept=self._kept_lines)
        self._check(head, ends=ends)
        self._known = block, ends, head
        return head

    def _check(self, head: RequestHead, *, ends: bool) -> None:
        """Check what is not the same in HTTP/1, and complete the head."""
        fields = head.fields
        if not _CONNECTION_FIELDS.isdisjoint(fields):
            raise malformed()
        for value in fields.get(b"te", ()):
            if value.lower() != b"trailers":
                raise malformed()
        if ends:
            if head.length:
                raise malformed()
        elif b"content-length" not in fields:
            head.is_chunked = True
        peer = self._peer
        if peer.certificate_header:
            # The upstream may believe this field, too.
            head.drop_spellings(peer.certificate_header, keeps_exact=peer.is_trusted)


def sort_fields(
    fields: RawHeaders, *, max_fields: int, max_bytes: int
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Return pseudo-fields, and the others as lines. Raises `BadRequestError` and
    `HeadTooLargeError`."""
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    hosts: list[bytes] = []
    crumbs: list[bytes] = []
    for name, value in fields:
        if name.startswith(b":"):
            if lines or crumbs or hosts or name in pseudo or name not in _PSEUDO_FIELDS:
                raise malformed()
            pseudo[name] = value
        elif not _NAME(name):
            raise malformed()
        elif name == b"cookie":
            crumbs.append(value)
        elif name == b"host":
            hosts.append(value)
        else:
            lines.append(b"%b: %b" % (name, value))
    _check_size(fields, len(fields) - len(pseudo), max_fields, max_bytes)
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


def _check_size(fields: RawHeaders, count: int, max_fields: int, max_bytes: int) -> None:
    """Cookies count as they came, one by one (RFC 9113 section 8.2.3 splits them)."""
    if count > max_fields:
        raise HeadTooLargeError("head_too_large", "The request head has too many fields.")
    # With `: ` and line end, as in HTTP/1.
    if sum(len(name) + len(value) + 4 for name, value in fields) > max_bytes:
        raise HeadTooLargeError("head_too_large", "The request head is too large.")


def malformed() -> BadRequestError:
    """The error for what is not HTTP/2 (RFC 9113 section 8.1.1). Says nothing of what is in it."""
    return BadRequestError("malformed", "The request is not valid HTTP/2.")


def response_fields(head: ResponseHead, request_id: bytes) -> Fields:
    """Return the fields of a response, interim ones included; `request_id` may be empty."""
    last: Fields = ((b"x-request-id", request_id),) if request_id else ()
    return RESPONSE_LISTER.list_fields(((b":status", _STATUSES[head.status]),), head.lines, last)


def trailer_fields(fields: RawHeaders) -> Trailers:
    """Return the trailers of a request that may pass; never a pseudo-field."""
    named = ((name.lower(), value) for name, value in fields if not name.startswith(b":"))
    return passing_trailers(tuple(named))
