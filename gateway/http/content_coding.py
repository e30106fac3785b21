"""Compresses responses (RFC 9110 sections 8.4.1 and 12.5.3).

Off unless a route says so. A client that can choose part of a response and watch its length can
guess a secret that stands in the same response (BREACH): compress what holds none.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.http.fields import RawHeaders, header_values, without_fields
from gateway.http.response_head import ResponseHead

GZIP_LEVEL = 6
BROTLI_QUALITY = 5
_GZIP_WINDOW = 31  # zlib's way to ask for a gzip header

# Fields about the bytes before compression.
_OUTDATED = frozenset(
    {
        b"content-length",
        b"content-md5",
        b"content-digest",
        b"digest",
        b"repr-digest",
        b"accept-ranges",
    }
)
_PARTIAL = 206
_INCOMPRESSIBLE = frozenset({204, 304})
_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE | re.ASCII)


class Encoder(Protocol):
    """Compresses one body."""

    def feed(self, piece: bytes) -> bytes:
        """Compress a piece; returns what can be sent."""

    def finish(self) -> bytes:
        """The rest."""


class _Gzip:
    """`is_live`: each piece is to be readable at once, and not only with the next ones."""

    def __init__(self, *, is_live: bool) -> None:
        self._compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        self._is_live = is_live

    def feed(self, piece: bytes) -> bytes:
        out = self._compressor.compress(piece)
        return out + self._compressor.flush(zlib.Z_SYNC_FLUSH) if self._is_live else out

    def finish(self) -> bytes:
        return self._compressor.flush()


class _Brotli:
    def __init__(self, *, is_live: bool) -> None:
        # Loaded only where it is configured: it is an extra.
        import brotli

        self._compressor: Any = brotli.Compressor(quality=BROTLI_QUALITY)
        self._is_live = is_live

    def feed(self, piece: bytes) -> bytes:
        out: bytes = self._compressor.process(piece)
        return out + self._compressor.flush() if self._is_live else out

    def finish(self) -> bytes:
        out: bytes = self._compressor.finish()
        return out


def choose_coding(accept_encoding: Sequence[bytes], codings: Sequence[str]) -> str | None:
    """The coding that the client likes best, ours first among equals; None for none of them.

    A value that can't be understood accepts nothing.
    """
    qualities: dict[str, float] = {}
    for member in b",".join(accept_encoding).decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        quality = 1.0
        if parameters:
            match = _QUALITY.fullmatch(parameters[0].replace(" ", ""))
            quality = float(match[1]) if match and len(parameters) == 1 else 0.0
        qualities[name.removeprefix("x-")] = quality
    rest = qualities.get("*", 0.0)
    liked = [(qualities.get(coding, rest), -at, coding) for at, coding in enumerate(codings)]
    quality, _, coding = max(liked, default=(0.0, 0, ""))
    # Where the client would rather have it as it is, it gets it so.
    return coding if quality > 0 and quality >= qualities.get("identity", 0.0) else None


@dataclass(frozen=True, slots=True)
class Compression:
    """Rules for the compression of a route's responses."""

    types: frozenset[str]
    codings: tuple[str, ...] = ("gzip",)
    min_bytes: int = 1024

    def begin(
        self, head: ResponseHead, headers: RawHeaders, *, method: str, is_http_10: bool
    ) -> tuple[ResponseHead, Encoder | None]:
        """The head that the client gets, and what its body goes through, if anything."""
        lines = head.lines.splitlines(keepends=True)
        if not self._may_change(lines, head.status):
            return head, None
        if not _names(lines, b"vary", b"accept-encoding"):
            lines.append(b"Vary: Accept-Encoding\r\n")
        coding = choose_coding(header_values(headers, b"accept-encoding"), self.codings)
        is_small = head.length is not None and head.length < self.min_bytes
        if coding is None or is_small or is_http_10 or head.status == _PARTIAL:
            return head.with_lines(b"".join(lines)), None
        if method == "HEAD":  # the fields of GET, but for those that the body decides
            changed = head.with_lines(b"".join(_describe(lines, coding)))
            changed.length = None
            return changed, None
        # Where the length is known, all of it comes without a pause in between.
        is_live = head.length is None
        encoder: Encoder = _Brotli(is_live=is_live) if coding == "br" else _Gzip(is_live=is_live)
        changed = head.with_lines(b"".join(_describe(lines, coding)))
        changed.length = None
        return changed, encoder

    def _may_change(self, lines: list[bytes], status: int) -> bool:
        if status in _INCOMPRESSIBLE or _values(lines, b"content-encoding"):
            return False
        if _names(lines, b"cache-control", b"no-transform"):
            return False
        kinds = _values(lines, b"content-type")
        kind = kinds[0].partition(b";")[0].strip().lower() if len(kinds) == 1 else b""
        # Events are waited for one by one, and hold little that repeats.
        return kind.decode("latin-1") in self.types and kind != b"text/event-stream"


def _describe(lines: list[bytes], coding: str) -> list[bytes]:
    """The lines of a response that is sent in `coding`."""
    changed = [_weaken(line) for line in without_fields(lines, _OUTDATED)]
    changed.append(b"Content-Encoding: %b\r\n" % coding.encode("ascii"))
    return changed


def _values(lines: list[bytes], name: bytes) -> list[bytes]:
    found = (line.partition(b":") for line in lines)
    return [value.strip() for given, _, value in found if given.lower() == name]


def _names(lines: list[bytes], name: bytes, member: bytes) -> bool:
    members = b",".join(_values(lines, name)).lower().split(b",")
    return member in {one.strip() for one in members}


def _weaken(line: bytes) -> bytes:
    """RFC 9110 section 8.8.1: other bytes with the same meaning have a weak validator."""
    name, _, value = line.partition(b":")
    value = value.strip()
    if name.lower() != b"etag" or value.startswith(b"W/"):
        return line
    return b"%b: W/%b\r\n" % (name, value)
