"""Heads of HTTP/1: a request from the bytes before its body.

By the codec in one call where it is installed and nothing is unusual, else by the Python readers,
which define what a head says and raise what is wrong with it.
"""

from __future__ import annotations

from contextlib import suppress

from gateway.downstream.request import NO_HEAD, NO_LINE, Peer, Request
from gateway.downstream.stream import ClientLimits
from gateway.http.errors import HeadTooLargeError, ProblemError
from gateway.http.fields import Field
from gateway.http.request_head import (
    RequestHead,
    head_of,
    line_of,
    parse_request_head,
    parse_request_line,
    read_request,
    read_request_line,
)


class HeadReader:
    """Reads the heads of requests on one connection. Clients mostly send the same fields in every
    request: the last head is kept, with all that was found out about it."""

    __slots__ = (
        "_block", "_head", "_head_bytes", "_kept_lines", "_line", "_max_fields", "_parsed_line",
        "_peer", "end",
    )  # fmt: skip

    def __init__(self, peer: Peer, limits: ClientLimits) -> None:
        self._peer = peer
        self._head_bytes = limits.head_bytes
        self._max_fields = limits.headers
        self._kept_lines: dict[bytes, Field] = {}
        self._block = b""
        """The fields that were read last, and what they say."""
        self._head = NO_HEAD
        self._line = NO_LINE
        """The last one that the codec read."""
        self._parsed_line = (b"", NO_LINE)
        """The last one that Python read."""
        self.end = 0
        """Where the head ends that was read last, and its empty line."""

    @property
    def is_unused(self) -> bool:
        """Whether no head with fields was read yet."""
        return self._head is NO_HEAD

    def try_read(self, data: bytes) -> Request | None:
        """Read the head that `data` begins with by the codec, and set `end`; None where Python has
        to read it, or more has to come."""
        read = read_request(
            data, self._line, self._block, max_fields=self._max_fields, max_bytes=self._head_bytes
        )
        if read is None:
            return None
        line, fields, self.end = read
        if line is not None:
            self._line = line_of(line)
        if fields is not None:
            self._keep(fields[0], head_of(fields))
        return Request(self._line, self._head, self._peer)

    def read(self, head: bytes) -> Request:
        """Read a head in Python, without the empty line that ends it. Raises `ProblemError`."""
        if len(head) > self._head_bytes:
            raise HeadTooLargeError("head_too_large", "The request head is too large.")
        first, _, block = head.partition(b"\r\n")
        if block != self._block:
            parsed = parse_request_head(block, max_fields=self._max_fields, kept=self._kept_lines)
            self._keep(block, parsed)
        line = self._parsed_line
        if first != line[0]:
            self._parsed_line = line = first, parse_request_line(first)
        return Request(line[1], self._head, self._peer)

    def reject(self, error: ProblemError, line: bytes) -> Request:
        """A request that can't be read; `line` is its first line, as far as it came."""
        read = NO_LINE
        with suppress(ProblemError):
            read = read_request_line(line)
        return Request(read, NO_HEAD, self._peer, error)

    def _keep(self, block: bytes, head: RequestHead) -> None:
        if certificate := self._peer.certificate_header:
            # The upstream may believe this field, too.
            head.drop_spellings(certificate, keeps_exact=self._peer.is_trusted)
        self._block, self._head = block, head
