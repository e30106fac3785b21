"""A deadline that is cheap to move.

A timer per request costs more than most of what a request does. A `Deadline` keeps one
timer and lets it fire early: moved later, as the next request on a connection does, it
only notes the new time, and the timer re-arms itself when it fires. A time of 0 is none.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable

AT_ONCE_S = 0.001
"""For `Deadline.set`, to which 0 means never."""


def do_nothing() -> None:
    """Stands for a call whose owner is gone."""


class Deadline:
    """Calls `expire` once when the time set last has come."""

    __slots__ = ("_at", "_fires_at", "_loop", "_time", "_timer", "expire")

    def __init__(self, loop: AbstractEventLoop, expire: Callable[[], None] = do_nothing) -> None:
        self._loop = loop
        self._time = loop.time
        self.expire = expire
        self._at = 0.0
        self._timer: TimerHandle | None = None
        self._fires_at = 0.0

    @property
    def is_set(self) -> bool:
        """Whether it would expire some time."""
        return self._at != 0.0

    def set(self, timeout_s: float) -> None:
        """Expire `timeout_s` seconds from now; 0 means never."""
        if not timeout_s:
            self._at = 0.0
            return
        self._at = at = self._time() + timeout_s
        if self._timer is None:
            self._arm(at)
        elif at < self._fires_at:
            self._timer.cancel()
            self._arm(at)

    def clear(self) -> None:
        """Don't expire. The timer stays for the next `set`."""
        self._at = 0.0

    def close(self) -> None:
        """Let go of the timer, and of what would be called: its owner is freed at once, and not by
        the garbage collector, which would pause the process for those of many connections."""
        self._at = 0.0
        self.expire = do_nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        self._fires_at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if not self._at:
            return
        if self._loop.time() < self._at:
            self._arm(self._at)
            return
        self._at = 0.0
        self.expire()
