"""A circuit breaker: a store that failed is left alone for a while.

No caller waits for a response that will not come, and a store that comes back is not met by
all callers at once: one call at a time tries it, after a pause that grows and that differs
from process to process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from gateway.oauth.models import Clock, StoreUnavailableError

FAILURES = 3
"""In a row, after which calls are refused."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 0.5
"""Short, because recovery is promised within 2 s of the store's own, and a single call by each
process can't hurt the store."""


class StoreBreaker:
    """Closed while calls succeed, open after failures, half-open while one call tries."""

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._threshold = failures
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._closed_again_at = 0.0
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for those that try."""
        return self._failures >= self._threshold

    @property
    def has_just_opened(self) -> bool:
        """Whether no further call failed since the one that opened it."""
        return self._failures == self._threshold

    @property
    def is_resting(self) -> bool:
        """Whether a call that begins now would be refused."""
        return self.is_open and (self._is_trying or self._clock() < self._closed_again_at)

    def enter(self) -> None:
        """A call begins; it ends by `succeed`, `fail` or `withdraw`.

        Raises `StoreUnavailableError`.
        """
        if self.is_resting:
            raise StoreUnavailableError("it failed a moment ago, and is left alone for now")
        self._is_trying = self.is_open

    def succeed(self) -> None:
        """Note that the store responded."""
        self._failures = 0
        self._is_trying = False

    def fail(self) -> None:
        """The store did not respond."""
        self._failures += 1
        self._is_trying = False
        times_open = self._failures - self._threshold
        if times_open >= 0:
            pause_s = min(FIRST_PAUSE_S * 2.0 ** min(times_open, 30), LONGEST_PAUSE_S)
            self._closed_again_at = self._clock() + pause_s * (0.5 + self._chance() / 2)

    def withdraw(self) -> None:
        """The caller went away without a response, which says nothing about the store."""
        self._is_trying = False
