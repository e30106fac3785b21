"""Limits of HTTP/2 connections: what is configured, and budgets for what costs a client nothing.

What a client can have us do for a few bytes is paid from a budget, which refills with time and, for
frames that come with honest traffic, with that traffic. An empty one ends the connection with
ENHANCE_YOUR_CALM. Peers in `trusted_proxies` stand for many clients, and have ten times as much.
"""

from __future__ import annotations

from dataclasses import dataclass

TRUSTED_FACTOR = 10
RESET_REFILL_S = 30.0
"""How long an empty budget of resets takes to be full."""
CONTROL_FRAMES = 10_000
"""PING, SETTINGS and WINDOW_UPDATE frames at once."""
CONTROL_REFILL_S = 30.0
PER_REQUEST = 8
PER_SEND = 4
"""Control frames that a request, and a piece of a response, earn: clients give windows back, and
measure round trips, as data comes."""


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


class Budget:
    """A token bucket."""

    __slots__ = ("_left", "_rate", "_size", "_updated_at")

    def __init__(self, size: float, refill_s: float, now: float) -> None:
        self._size = self._left = size
        self._rate = size / refill_s
        self._updated_at = now

    def spend(self, now: float) -> bool:
        """Take one; returns whether there was one."""
        left = min(self._size, self._left + (now - self._updated_at) * self._rate)
        self._updated_at = now
        self._left = left - 1.0
        return left >= 1.0

    def earn(self, count: float) -> None:
        """Add some."""
        self._left = min(self._size, self._left + count)
