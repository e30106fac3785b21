"""Stops guessing: after some failures, a client and its source are refused for a while.

The MuleSoft provider has such a limiter without saying what it counts by. Here it is
the pair of client id and source address, so that an attacker elsewhere can't lock a
client out, and a client behind the same address as others does not lock them out.
"""

from __future__ import annotations

import math
import time

from cachetools import TTLCache

from gateway.oauth.models import Clock

MAX_PAIRS = 100_000


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
        self._windows: TTLCache[tuple[str, str], _Window] = TTLCache(
            MAX_PAIRS, window_s, timer=clock
        )

    def retry_after_s(self, client_id: str, source: str) -> int | None:
        """Seconds until this pair may try again, or None if it may try now."""
        window = self._windows.get((client_id, source))
        if window is None or window.failures < self._failures:
            return None
        return max(1, math.ceil(window.ends_at - self._clock()))

    def fail(self, client_id: str, source: str) -> None:
        """Count a failed authentication."""
        pair = (client_id, source)
        window = self._windows.get(pair)
        if window is None:
            window = self._windows[pair] = _Window(self._clock() + self._window_s)
        window.failures += 1

    def succeed(self, client_id: str, source: str) -> None:
        """Forget the failures of a pair that proved who it is."""
        self._windows.pop((client_id, source), None)


class _Window:
    __slots__ = ("ends_at", "failures")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.failures = 0
