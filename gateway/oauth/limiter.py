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
UNKNOWN = "unknown"
"""The state of a client that there is none of."""
COMPARE_EVERY_S = 1.0
"""How often a client that is rejected is looked at again, in case an operator changed it."""


@dataclass(frozen=True, slots=True)
class FailingClient:
    """A pair whose failures are being counted."""

    client_id: str
    source: str
    failures: int
    ends_in_s: float
    state: str = ""


class FailedClientLimiter:
    """Counts failed authentications in fixed windows that begin with the first failure.

    Memory is bounded: where an attacker makes up more pairs than `MAX_PAIRS`, the ones
    that were not used for longest are forgotten. Those of clients that exist are kept apart, so
    that unknown ids push none of them out.
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
        self._unknown: LRUCache[tuple[str, str], _Window] = LRUCache(MAX_PAIRS)

    def _live(self, pair: tuple[str, str]) -> _Window | None:
        window = self._windows.get(pair) or self._unknown.get(pair)
        return window if window is not None and self._clock() < window.ends_at else None

    def reconfigure(self, *, failures: int, window_s: float) -> None:
        """Go by another limit. Windows that have begun end as they would have."""
        self._failures = failures
        self._window_s = window_s

    @property
    def limit(self) -> tuple[int, float]:
        """How many failures are allowed, and within how many seconds."""
        return self._failures, self._window_s

    def retry_after_s(self, client_id: str, source: str) -> int | None:
        """Seconds until this pair may try again, or None if it may try now."""
        window = self._live((client_id, source))
        if window is None or window.failures < self._failures:
            return None
        return max(1, math.ceil(window.ends_at - self._clock()))

    def state_to_compare(self, client_id: str, source: str) -> str | None:
        """The state of the client when it last failed, to be compared with the one it has now;
        None where it is not known, or was given a moment ago."""
        window = self._live((client_id, source))
        if window is None or not window.state:
            return None
        now = self._clock()
        if now - window.compared_at < COMPARE_EVERY_S:
            return None
        window.compared_at = now
        return window.state

    def last_state(self, client_id: str, source: str) -> str:
        """Return the state that the last failure of a pair was counted with; empty for none."""
        window = self._live((client_id, source))
        return window.state if window is not None else ""

    def fail(self, client_id: str, source: str, *, state: str = "") -> None:
        """Count a failed authentication of a client in this state."""
        pair = (client_id, source)
        window = self._live(pair) or _Window(self._clock() + self._window_s)
        self._keep(pair, window, state)
        window.failures += 1

    def _keep(self, pair: tuple[str, str], window: _Window, state: str) -> None:
        window.state = state or window.state
        kept, other = self._windows, self._unknown
        if window.state == UNKNOWN:
            kept, other = other, kept
        other.pop(pair, None)
        kept[pair] = window

    def succeed(self, client_id: str, source: str) -> bool:
        """Forget the failures of a pair that proved who it is. Whether there were any."""
        was_failing = self._live((client_id, source)) is not None
        self._windows.pop((client_id, source), None)
        self._unknown.pop((client_id, source), None)
        return was_failing

    def failing(self) -> Iterator[FailingClient]:
        """Every pair with failures that still count."""
        now = self._clock()
        for client_id, source in (*self._windows, *self._unknown):
            if window := self._live((client_id, source)):
                ends_in_s = window.ends_at - now
                yield FailingClient(client_id, source, window.failures, ends_in_s, window.state)

    def restore(self, failing: FailingClient) -> None:
        """Go on where another limiter was with a pair."""
        window = _Window(self._clock() + failing.ends_in_s)
        window.failures = failing.failures
        self._keep((failing.client_id, failing.source), window, failing.state)


class _Window:
    __slots__ = ("compared_at", "ends_at", "failures", "state")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.failures = 0
        self.state = ""
        self.compared_at = float("-inf")
