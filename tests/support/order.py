"""The order of tests that several processes share."""

from __future__ import annotations

from itertools import groupby

import pytest

WAITING = ("acme", "system", "deploy", "workers", "docs")
"""Folders of tests that start programs and wait for them."""


def deal(items: list[pytest.Item], processes: int) -> None:
    """Give each of the processes its part of the tests that wait, and let it begin with them: the
    last minute has none that keep one process busy while the others are done. pytest-xdist gives
    each process a part of the list in one piece, and moves what is left from the end of a part."""
    modules = [list(found) for _, found in groupby(items, key=lambda item: item.path)]
    first = [module for module in modules if module[0].path.parent.name in WAITING]
    rest = [item for module in modules if module not in first for item in module]
    dealt: list[pytest.Item] = []
    for number in range(processes):
        for module in sorted(first, key=len, reverse=True)[number::processes]:
            dealt += module
        missing = len(items) * (number + 1) // processes - len(dealt)
        dealt += rest[: max(0, missing)]
        del rest[: max(0, missing)]
    items[:] = dealt + rest
