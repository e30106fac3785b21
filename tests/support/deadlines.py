"""Deadlines that scale with the machine: a test that fails because it is busy is a defect.

A deadline is only met by a test that fails, so a long one costs nothing. Each is given in seconds
of an idle machine of our own kind and multiplied by `patience()`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 20.0
"""Of what takes less than a second on an idle machine."""
_REFERENCE_S = 0.012
"""CPU time of `_calibrate`'s loop on the machine that deadlines were written on."""
LEAST_LOOKS = 50
"""A state that was looked at less often did not have its time: we did not have ours."""


@functools.cache
def _speed() -> float:
    """How many times slower this machine computes than the reference; never below 1."""
    took_s = min(_calibrate() for _ in range(3))
    return max(1.0, took_s / _REFERENCE_S)


def _calibrate() -> float:
    started = time.thread_time()
    total = 0
    for number in range(100_000):
        total += number * number % 7
    return time.thread_time() - started


def patience() -> float:
    """What to multiply a deadline by: TEST_PATIENCE, times the measured slowness of the machine,
    times the processes that wait for each of its cores now."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return float(os.environ.get("TEST_PATIENCE", "1")) * _speed() * max(1.0, load)


def scaled(seconds: float = DEADLINE_S) -> float:
    """A deadline for something that has one of its own: a subprocess, a socket, a client."""
    return seconds * patience()


def duration(seconds: float) -> str:
    """A timer for the configuration of a gateway that must not end before the test has done
    something: on a busy machine, that takes its time."""
    return f"{scaled(seconds) * 1000:.0f}ms"


def within(seconds: float = DEADLINE_S) -> asyncio.Timeout:
    """Raises TimeoutError where the block takes longer: `async with within():`."""
    return asyncio.timeout(scaled(seconds))


async def until(
    condition: Callable[[], object | Awaitable[object]], *, within_s: float = DEADLINE_S
) -> None:
    """Look at a state until it has come (is true)."""
    deadline, looks = time.monotonic() + scaled(within_s), 0
    while True:
        state = condition()
        if inspect.isawaitable(state):
            state = await state
        if state:
            return
        looks += 1
        assert time.monotonic() < deadline or looks < LEAST_LOOKS, "the state did not come"
        await asyncio.sleep(_pause_s(looks))


def wait_until(
    condition: Callable[[], T],
    *,
    within_s: float = DEADLINE_S,
    what: Callable[[], str] = lambda: "the state did not come",
) -> T:
    """`until`, for tests whose gateway is another process or thread. Returns the state; `what` is
    told where it did not come."""
    deadline, looks = time.monotonic() + scaled(within_s), 0
    while not (state := condition()):
        looks += 1
        assert time.monotonic() < deadline or looks < LEAST_LOOKS, what()
        time.sleep(_pause_s(looks))
    return state


def _pause_s(looks: int) -> float:
    """Longer and longer: who looks all the time takes the core that the other needs."""
    return min(0.1, 0.005 * 1.2 ** min(looks, 20))


async def settled(value: Callable[[], T], *, for_s: float = 0.2) -> T:
    """What a value is once it has stopped changing: it was the same for as long as this, and
    whenever it was looked at."""
    async with within():
        last, since, looks = value(), time.monotonic(), 0
        while looks < LEAST_LOOKS // 2 or time.monotonic() - since < scaled(for_s):
            await asyncio.sleep(0.005)
            if (now := value()) != last:
                last, since, looks = now, time.monotonic(), 0
            looks += 1
        return last
