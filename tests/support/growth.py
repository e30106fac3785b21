"""Counts what work costs, so that tests can compare n with 4n. Time would depend on the machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

COUNTED = ("gateway", "cachetools", "prometheus_client", "urllib")
"""Packages whose lines count."""


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the lines of `COUNTED` that this thread executes."""
    count = [0]

    def trace(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        if not frame.f_globals.get("__name__", "").startswith(COUNTED):
            return None
        if event == "line":
            count[0] += 1
        return trace

    gc.disable()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)
        gc.enable()


def cost(work: Callable[[], object]) -> int:
    """The lines that a call executes."""
    with counted() as count:
        work()
    return count[0]


def assert_grows_linearly(cost_of: Callable[[int], int], size: int) -> None:
    """`cost_of` prepares work on so much, and returns what it cost."""
    small, large = cost_of(size), cost_of(4 * size)
    assert large < 6 * small + 100, f"{size}: {small} lines; {4 * size}: {large}"


def assert_does_not_grow(cost_of: Callable[[int], int], size: int) -> None:
    """`cost_of` prepares work beside so much of what it should not depend on."""
    small, large = cost_of(size), cost_of(4 * size)
    assert large < 1.5 * small + 50, f"{size}: {small} lines; {4 * size}: {large}"
