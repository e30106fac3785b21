"""Limits of HTTP/2 connections: what is configured, and budgets for what costs a client nothing.

What a client can have us do for a few bytes is paid from a budget, which refills with time and, for
frames that come with honest traffic, with that traffic. An empty one ends the connection with
ENHANCE_YOUR_CALM. Peers in `trusted_proxies` stand for many clients, and have ten times as much.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.http.h2 import (
    ENHANCE_YOUR_CALM,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    REFUSED_STREAM,
    H2Events,
)
from gateway.http.h2_engine import H2Engine

RST_STREAM = 0x3
"""The type of its frame (RFC 9113 section 6.4)."""
_REFUSED = REFUSED_STREAM.to_bytes(4, "big")
TRUSTED_FACTOR = 10
RESET_REFILL_S = 30.0
"""How long an empty budget of resets takes to be full."""
PER_FRAME_BYTES = 64
"""What a frame may take besides data."""


@dataclass(frozen=True, slots=True)
class H2Settings:
    """Limits of HTTP/2 connections of clients, as configured."""

    max_concurrent_streams: int
    initial_window: int
    """Bytes of a request's body that may be under way, for each stream."""
    connection_window: int
    """The same for all streams of a connection together."""
    max_age_s: float
    """When a connection is asked to close, 10 % more or less; 0 is never."""
    max_resets: int
    """Streams reset by the client, or for its errors, within `RESET_REFILL_S`."""


def make_engine(
    events: H2Events,
    settings: H2Settings,
    *,
    head_bytes: int,
    headers: int,
    resets: tuple[int, int],
) -> H2Engine:
    """Make the engine of a connection; `resets` is how many end it, at once and a second: more than
    its own budget has, also where one piece is full of them. The engine would call it an
    INTERNAL_ERROR."""
    # Twice what is responded to with 431: above it, the connection ends.
    max_fields = 2 * headers + 16
    return H2Engine(
        events,
        is_server=True,
        settings={
            MAX_CONCURRENT_STREAMS: settings.max_concurrent_streams,
            INITIAL_WINDOW_SIZE: settings.initial_window,
            MAX_HEADER_LIST_SIZE: head_bytes + 32 * headers,
        },
        connection_window=settings.connection_window,
        max_fields=max_fields,
        max_head_bytes=2 * head_bytes + 32 * max_fields,
        resets=resets,
    )


def cause_of(code: int) -> str:
    """Return the reason by which an error is counted that the engine ended a connection for."""
    return "flood" if code == ENHANCE_YOUR_CALM else "protocol"


class RefusedStreams:
    """Finds the streams that an engine refuses by itself, in what it sends: those above a limit
    that the client has not acknowledged yet, of which it reports nothing."""

    __slots__ = ("_part", "_skipped")

    def __init__(self) -> None:
        self._part = b""
        """The beginning of a frame, whose rest comes with the next piece."""
        self._skipped = 0
        """What is left of a frame that was looked at."""

    def read(self, data: bytes) -> list[int]:
        """Read the next bytes that are sent; returns the streams refused by them."""
        found: list[int] = []
        data = self._part + data
        at, size = self._skipped, len(data)
        while size - at >= 13 or (size - at >= 9 and data[at + 3] != RST_STREAM):
            if data[at + 3] == RST_STREAM and data[at + 9 : at + 13] == _REFUSED:
                found.append(int.from_bytes(data[at + 5 : at + 9], "big"))
            at += 9 + int.from_bytes(data[at : at + 3], "big")
        self._part = data[at:]
        self._skipped = max(0, at - size)
        return found
