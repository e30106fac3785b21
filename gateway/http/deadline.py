"""A deadline that is cheap to move.

A timer per request costs more than most of what a request does. A `Deadline` keeps one
timer and lets it fire early: moved later, as the next request on a connection does, it
only notes the new time, and the timer re-arms itself when it fires.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable


class Deadline:
    """Calls `expire` once when the time set last has come."""

    __slots__ = ("_at", "_expire", "_loop", "_timer")

    def __init__(self, loop: AbstractEventLoop, expire: Callable[[], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._at: float | None = None
        self._timer: TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether it would expire some time."""
        return self._at is not None

    def set(self, timeout_s: float) -> None:
        """Expire `timeout_s` seconds from now; 0 means never."""
        if not timeout_s:
            self._at = None
            return
        self._at = at = self._loop.time() + timeout_s
        timer = self._timer
        if timer is None:
            self._timer = self._loop.call_at(at, self._fire)
        elif at < timer.when():
            timer.cancel()
            self._timer = self._loop.call_at(at, self._fire)

    def clear(self) -> None:
        """Don't expire. The timer stays for the next `set`."""
        self._at = None

    def close(self) -> None:
        """Let go of the timer."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._fire)
            return
        self._at = None
        self._expire()
