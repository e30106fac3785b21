"""Budgets for what costs a peer of HTTP/2 nothing, and us some work (RFC 9113 section 10.5)."""

from __future__ import annotations

CONTROL_FRAMES = 10_000
"""PING, SETTINGS, WINDOW_UPDATE and GOAWAY frames at once; of an upstream, RST_STREAM of streams
that have ended, too."""
CONTROL_REFILL_S = 30.0
PER_REQUEST = 8
"""Control frames that a request earns."""
PER_PIECE = 4
EARNING_BYTES = 1024


def earned_by(size: int) -> int:
    """Control frames that a piece of a body earns, sent or received: peers measure round trips as
    data comes, and give windows back, some of them with each 4 KiB, of the stream and of the
    connection."""
    return PER_PIECE + size // EARNING_BYTES


class Budget:
    """A token bucket."""

    __slots__ = ("_left", "_rate", "_size", "_updated_at")

    def __init__(self, size: float, refill_s: float, now: float) -> None:
        self._size = self._left = size
        self._rate = size / refill_s
        self._updated_at = now

    def spend(self, now: float, count: float = 1.0) -> bool:
        """Take some; returns whether there were as many."""
        left = min(self._size, self._left + (now - self._updated_at) * self._rate)
        self._updated_at = now
        self._left = left - count
        return left >= count

    def earn(self, count: float) -> None:
        """Add some."""
        self._left = min(self._size, self._left + count)
