"""Measure how long the event loop is held up: by work that should be in a thread, or by others on
the same machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PERIOD_S = 0.02
"""A stall is measured short by this much at most."""
WINDOW_S = 60.0


class StallWatch:
    """The longest stall of the running event loop, by a timer that always should be on time."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        """`clock` is monotonic, by default that of the running loop."""
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._due = self._window_ends_at = 0.0
        self._before = self._current = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._clock() + PERIOD_S
        self._timer = self._loop.call_later(PERIOD_S, self._wake)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    def longest_s(self) -> float:
        """The longest stall of the last one to two minutes, so that each scrape interval of up to
        a minute sees every stall."""
        return max(self._before, self._current)

    def _wake(self) -> None:
        now = self._clock()
        late_s = now - self._due
        if now >= self._window_ends_at:
            self._window_ends_at = now + WINDOW_S
            self._before, self._current = self._current, 0.0
        self._current = max(self._current, late_s)
        self.start()
