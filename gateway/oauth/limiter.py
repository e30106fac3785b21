"""Stops guessing: after some failures, a client and its source are refused for a while.

The MuleSoft provider has such a limiter without saying what it counts by. Here it is
the pair of client id and source address, so that an attacker elsewhere can't lock a
client out, and a client behind the same address as others does not lock them out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from cachetools import LRUCache

from gateway.oauth.models import Clock

MAX_PAIRS = 100_000


@dataclass(frozen=True, slots=True)
class FailingClient:
    """A pair whose failures are being counted."""

    client_id: str
    source: str
    failures: int
    ends_in_s: float


class FailedClientLimiter:
    """Counts failed authentications in fixed windows that begin with the first failure.

    Memory is bounded: where an attacker makes up more pairs than `MAX_PAIRS`, the ones
    that were not used for longest are forgotten.
    """

    def __init__(
        self, *, failures: int = 5, window_s: float = 600.0, clock: Clock = time.monotonic
    ) -> None:
        self._failures = failures
        self._window_s = window_s
        self._clock = clock
        # Windows that are over stay until they are met again, or others need their place: to remove
        # all that end together would take long.
        self._windows: LRUCache[tuple[str, str], _Window] = LRUCache(MAX_PAIRS)

    def _live(self, pair: tuple[str, str]) -> _Window | None:
        window = self._windows.get(pair)
        return window if window is not None and self._clock() < window.ends_at else None

    def reconfigure(self, *, failures: int, window_s: float) -> None:
        """Go by another limit. Windows that have begun end as they would have."""
        self._failures = failures
        self._window_s = window_s

    def retry_after_s(self, client_id: str, source: str) -> int | None:
        """Seconds until this pair may try again, or None if it may try now."""
        window = self._live((client_id, source))
        if window is None or window.failures < self._failures:
            return None
        return max(1, math.ceil(window.ends_at - self._clock()))

    def fail(self, client_id: str, source: str) -> None:
        """Count a failed authentication."""
        pair = (client_id, source)
        window = self._live(pair)
        if window is None:
            window = self._windows[pair] = _Window(self._clock() + self._window_s)
        window.failures += 1

    def succeed(self, client_id: str, source: str) -> bool:
        """Forget the failures of a pair that proved who it is. Whether there were any."""
        was_failing = self._live((client_id, source)) is not None
        self._windows.pop((client_id, source), None)
        return was_failing

    def failing(self) -> Iterator[FailingClient]:
        """Every pair with failures that still count."""
        now = self._clock()
        for client_id, source in tuple(self._windows):
            if window := self._live((client_id, source)):
                yield FailingClient(client_id, source, window.failures, window.ends_at - now)

    def restore(self, failing: FailingClient) -> None:
        """Go on where another limiter was with a pair."""
        window = _Window(self._clock() + failing.ends_in_s)
        window.failures = failing.failures
        self._windows[failing.client_id, failing.source] = window


class _Window:
    __slots__ = ("ends_at", "failures")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.failures = 0
