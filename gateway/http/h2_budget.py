"""Budgets for what costs a peer of HTTP/2 nothing, and us some work (RFC 9113 section 10.5)."""

from __future__ import annotations

import asyncio

CONTROL_FRAMES = 10_000
"""PING, SETTINGS, WINDOW_UPDATE and GOAWAY frames at once; of an upstream, RST_STREAM of streams
that have ended, too."""
CONTROL_REFILL_S = 30.0
PER_REQUEST = 8
"""Control frames that a request earns."""
PER_PIECE = 4
EARNING_BYTES = 1024
IGNORED_BYTES = 1024 * 1024
IGNORED_REFILL_S = 30.0
"""Bytes that mean nothing, such as DATA of streams that are closed: honest peers send what was
under way, as much as a window, for each stream that was reset."""


def earned_by(size: int) -> int:
    """Control frames that a piece of a body earns, sent or received: peers measure round trips as
    data comes, and give windows back, some of them with each 4 KiB, of the stream and of the
    connection."""
    return PER_PIECE + size // EARNING_BYTES


class Budget:
    """A token bucket."""

    __slots__ = ("_left", "_most", "_rate", "_size", "_updated_at")

    def __init__(self, size: float, refill_s: float, now: float, *, most: float = 0.0) -> None:
        """`most` is how much can be earned, where that is more than what time refills."""
        self._size = self._left = size
        self._most = max(size, most)
        self._rate = size / refill_s
        self._updated_at = now

    def spend(self, now: float, count: float = 1.0) -> bool:
        """Take some; returns whether there were as many."""
        left = self._left
        if left < self._size:
            left = min(self._size, left + (now - self._updated_at) * self._rate)
        self._updated_at = now
        self._left = left - count
        return left >= count

    def earn(self, count: float) -> None:
        """Add some."""
        self._left = min(self._most, self._left + count)


class IgnoredBytes:
    """Pays for what a peer sends and the engine passes over without a report: frames of unknown
    types, DATA of streams that are closed, a head before its end."""

    __slots__ = ("_budget", "_loop", "_per_event", "_per_request", "data_bytes")

    def __init__(
        self,
        budget: Budget,
        loop: asyncio.AbstractEventLoop,
        *,
        per_request: int,
        per_event: int,
    ) -> None:
        """`per_request` is what a request gives reason for; `per_event` what a frame may take
        besides data."""
        self._budget = budget
        self._loop = loop
        self._per_request = per_request
        self._per_event = per_event
        self.data_bytes = 0
        """Of bodies, reported since the last payment: counted by the connection."""

    def earn(self, requests: int = 1) -> None:
        """Have room for what honest peers send with so many requests."""
        self._budget.earn(requests * self._per_request)

    def pay(self, size: int, events: int) -> bool:
        """Pay for bytes, reported as so many events; returns whether there was enough."""
        ignored = size - self.data_bytes - events * self._per_event
        self.data_bytes = 0
        if ignored > 0:
            return self._budget.spend(self._loop.time(), ignored)
        self._budget.earn(-ignored)  # of a frame that began with bytes before
        return True
