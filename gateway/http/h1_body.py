"""Message bodies: where one ends, and what is in it without its framing.

RFC 9112 sections 6 (message body length) and 7.1 (chunked coding). Chunk extensions are read, for
they may hide another message, and dropped; trailers are kept, `passing_trailers` says which may
pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gateway.http.fields import FieldSyntaxError, Trailers, parse_field, passing_trailers

MAX_CHUNK_LINE_BYTES = 256
MAX_CHUNKS_PER_FEED = 256
"""Some tenths of a millisecond of work: a single read can hold 40,000 chunks of one byte."""
MAX_TRAILER_BYTES = 16 * 1024
MAX_TRAILERS = 100
"""As many as a head may have fields, by default: where they pass to HTTP/2, each of them costs the
other side more than its bytes."""
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
# Servers pad the size, behind or in front; no parser reads another size from that. A client has no
# reason to.
_LAX_CHUNK_LINE = re.compile(rb"0*([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_SMALL_SIZES = {b"%x" % size: size for size in range(1, 256)}
"""Of chunks, in the usual form: small ones may come in great numbers."""

LAST_CHUNK = b"0\r\n\r\n"


class BodyFramingError(ValueError):
    """The framing of a body is broken: its end cannot be found."""


class Body(Protocol):
    """The body of one message, read piece by piece."""

    is_complete: bool
    rest: bytes
    """What came behind the end of the body."""
    has_more: bool
    """Whether what came holds more of the body, which the next `feed` reads, even one of nothing:
    bodies of very many pieces are read in several turns of the event loop."""

    def feed(self, data: bytes) -> bytes:
        """Take what came next; returns what of it is body. Raises `BodyFramingError`."""


class SizedBody:
    """A body of a known length (Content-Length)."""

    __slots__ = ("_left", "has_more", "is_complete", "rest")

    def __init__(self, length: int) -> None:
        self._left = length
        self.has_more = False
        self.is_complete = not length
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data
        size, self._left = self._left, 0
        self.is_complete = True
        if not left:
            return data
        self.rest = data[size:]
        return data[:size]


class EndlessBody:
    """A body that ends with the connection."""

    __slots__ = ("has_more", "is_complete", "rest")

    def __init__(self) -> None:
        self.has_more = False
        self.is_complete = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        return data


class ChunkedBody:
    """A body in chunks."""

    __slots__ = (
        "_buffer", "_left", "_line", "_step", "_trailer_bytes", "has_more", "is_complete", "rest",
        "trailers",
    )  # fmt: skip

    def __init__(self, *, is_response: bool = False) -> None:
        self._line = _LAX_CHUNK_LINE if is_response else _CHUNK_LINE
        self._buffer = b""
        self._left = 0
        self._trailer_bytes = 0
        self.trailers: Trailers = ()
        """Those that have come, all of them; names in lower case."""
        # Functions rather than bound methods, which would make every body a cycle to collect.
        self._step: _Step = ChunkedBody._read_size
        self.has_more = False
        self.is_complete = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
            self.has_more = False
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.is_complete:
            after = -1
            if len(pieces) < MAX_CHUNKS_PER_FEED:
                after = self._step(self, data, at, pieces)
            else:
                self.has_more = True
            if after < 0:
                self._buffer = data[at:]
                break
            at = after
        if self.is_complete:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # Each step reads from `at` on and returns where it ended; -1 asks for more bytes.

    def _read_size(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        start = at
        while True:  # over small chunks that are whole
            end = _find_line_end(data, at, MAX_CHUNK_LINE_BYTES)
            if end < 0:
                return -1 if at == start else at
            size = _SMALL_SIZES.get(data[at:end], 0)
            after = end + 2 + size
            if not size or data[after : after + 2] != b"\r\n":
                break
            pieces.append(data[end + 2 : after])
            at = after + 2
            if at == len(data) or len(pieces) == MAX_CHUNKS_PER_FEED:
                return at
        line = self._line.fullmatch(data, at, end)
        if line is None:
            raise BodyFramingError
        self._left = int(line[1], 16)
        self._step = ChunkedBody._read_chunk if self._left else ChunkedBody._read_trailer
        return end + 2

    def _read_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        piece = data[at : at + self._left]
        pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._step = ChunkedBody._read_chunk_end
        return at + len(piece)

    def _read_chunk_end(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        if not b"\r\n".startswith(data[at : at + 2]):
            raise BodyFramingError
        if len(data) - at < 2:
            return -1
        self._step = ChunkedBody._read_size
        return at + 2

    def _read_trailer(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        end = _find_line_end(data, at, MAX_TRAILER_BYTES - self._trailer_bytes)
        if end < 0:
            return -1
        if end == at:
            self.is_complete = True
            return end + 2
        self._trailer_bytes += end + 2 - at
        try:
            name, value = parse_field(data[at:end])
        except FieldSyntaxError:
            raise BodyFramingError from None
        if len(self.trailers) >= MAX_TRAILERS:
            raise BodyFramingError
        self.trailers = (*self.trailers, (name.lower(), value))
        return end + 2


_Step = Callable[[ChunkedBody, bytes, int, list[bytes]], int]


def _find_line_end(data: bytes, at: int, limit: int) -> int:
    """Find the end of the line from `at` on; -1 while that is not known. Raises
    `BodyFramingError` for a line that is longer than `limit` or can't end well."""
    end = data.find(b"\n", at, at + limit + 2)
    if end > at and data[end - 1] == 0x0D:
        return end - 1
    if end >= 0 or len(data) - at > limit:
        raise BodyFramingError
    return -1


def trailers_of(body: Body) -> Trailers:
    """The trailers of a body that is complete, as far as they may pass."""
    return passing_trailers(body.trailers) if isinstance(body, ChunkedBody) else ()


def render_chunk(piece: bytes) -> bytes:
    """One chunk. `piece` is not empty: that would be the last one."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def render_last_chunk(trailers: Trailers) -> bytes:
    """The end of a body in chunks, with trailers. One that is no field line is left out."""
    lines: list[bytes] = []
    for name, value in trailers:
        line = b"%b: %b" % (name, value)
        with suppress(FieldSyntaxError):
            parse_field(line)
            lines.append(line + b"\r\n")
    return b"0\r\n%b\r\n" % b"".join(lines)
