"""Count what a piece of work costs, so that tests see how the cost grows with its input.

Counted are the lines that are executed and the functions of C that are called, in the gateway and
in libraries in Python that do its work: the same on every machine, however busy. What a single
function of C does (a search in a list, a sort) counts as one. Where the gateway is compiled, tests
that count are skipped: its code is the same.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

import gateway.http.fields

MODULES = (
    "gateway", "cachetools", "jinja2", "prometheus_client", "pydantic", "redis", "urllib", "yaml",
)  # fmt: skip
MOST_GROWTH = 6.0
"""f(4n) is less than this many times f(n): twice the logarithm still passes, a square does not."""

IS_COMPILED = not gateway.http.fields.__file__.endswith(".py")


class Cost:
    """What was counted so far."""

    def __init__(self) -> None:
        self.count = 0

    def __int__(self) -> int:
        return self.count


@contextmanager
def counted(*modules: str, in_threads: bool = False) -> Iterator[Cost]:
    """Count the lines and calls of C in `modules` (by default those that work for a request).

    Work in threads that start meanwhile is counted on request only: it does not stop the loop.
    """
    if IS_COMPILED:
        pytest.skip("compiled code has no lines to count")
    cost = Cost()
    prefixes = modules or MODULES

    def trace(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        if not frame.f_globals.get("__name__", "").startswith(prefixes):
            return None
        if event == "line":
            cost.count += 1
        return trace

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and frame.f_globals.get("__name__", "").startswith(prefixes):
            cost.count += 1

    gc.disable()
    before = sys.gettrace(), sys.getprofile()
    if in_threads:
        threading.settrace(trace)
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        yield cost
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
        if in_threads:
            threading.settrace(None)
        gc.enable()


def cost_of(work: Callable[[], object]) -> int:
    """What `work` costs."""
    with counted() as cost:
        work()
    return int(cost)


async def cost_of_await(work: Awaitable[object]) -> int:
    """What `work` costs this thread until it is done, with whatever the loop runs meanwhile."""
    with counted() as cost:
        await work
    return int(cost)


def assert_linear(at_n: float, at_4n: float) -> None:
    """Check that a cost grows no faster than its input."""
    assert at_n > 0, "nothing was counted"
    assert at_4n < MOST_GROWTH * at_n, f"{at_n} grew to {at_4n} with four times the input"


def assert_constant(at_n: float, at_4n: float, *, slack: float = 10) -> None:
    """Check that a cost does not depend on the size of what it works on."""
    assert at_n > 0, "nothing was counted"
    assert at_4n <= at_n + slack, f"{at_n} grew to {at_4n} with four times as much there"


def assert_grows_linearly(cost_at: Callable[[int], int], size: int) -> None:
    """Check that the cost that `cost_at` returns for a size grows no faster than the size."""
    assert_linear(cost_at(size), cost_at(4 * size))


def assert_does_not_grow(cost_at: Callable[[int], int], size: int) -> None:
    """Check that the cost that `cost_at` returns does not depend on the size."""
    small = cost_at(size)
    assert_constant(small, cost_at(4 * size), slack=0.5 * small + 50)
