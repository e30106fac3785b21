"""A deadline that moves without a new timer, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from gateway.http.deadline import Deadline


class Timer:
    """A timer of `ManualLoop`."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.is_cancelled = False

    def when(self) -> float:
        """When it is due."""
        return self.at

    def cancel(self) -> None:
        """Don't fire."""
        self.is_cancelled = True


class ManualLoop:
    """The timers of an event loop, without the waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.armed = 0

    def time(self) -> float:
        """The time that the test has set."""
        return self.now

    def call_at(self, at: float, callback: Callable[[], None]) -> Timer:
        """A timer."""
        self.armed += 1
        self.timers.append(Timer(at, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.at <= self.now]:
            self.timers.remove(timer)
            if not timer.is_cancelled:
                timer.callback()


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def expired() -> list[float]:
    return []


@pytest.fixture
def deadline(loop: ManualLoop, expired: list[float]) -> Deadline:
    return Deadline(cast(asyncio.AbstractEventLoop, loop), lambda: expired.append(loop.now))


def test_it_expires_once_when_its_time_has_come(
    loop: ManualLoop, deadline: Deadline, expired: list[float]
) -> None:
    deadline.set(10)
    loop.advance(9)
    assert expired == []
    loop.advance(1)
    assert expired == [10]
    loop.advance(100)
    assert expired == [10]


def test_moving_it_later_costs_no_timer(
    loop: ManualLoop, deadline: Deadline, expired: list[float]
) -> None:
    for _ in range(100):
        deadline.set(10)
        loop.advance(0.05)
    assert loop.armed == 1
    loop.advance(9)
    assert expired == []
    loop.advance(1)
    assert len(expired) == 1
    assert loop.armed == 2


def test_it_can_be_moved_earlier(
    loop: ManualLoop, deadline: Deadline, expired: list[float]
) -> None:
    deadline.set(100)
    deadline.set(1)
    loop.advance(1)
    assert expired == [1]


def test_zero_and_clear_mean_never(
    loop: ManualLoop, deadline: Deadline, expired: list[float]
) -> None:
    deadline.set(1)
    deadline.set(0)
    loop.advance(5)
    deadline.set(1)
    deadline.clear()
    loop.advance(5)
    deadline.set(1)
    deadline.close()
    loop.advance(5)
    assert expired == []
