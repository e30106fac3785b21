"""Where nothing is compiled yet, one process of pytest-xdist collects before the others.

In a fresh checkout, each of them would compile all modules that it collects, with what pytest makes
of their assertions, and look through all sources for Hypothesis. The others find that done, and
linters have the other core meanwhile. `conftest.py` makes hooks of this.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
_INPUT = "waits_for_first"
_lock: list[int] = []
"""Held by the process that starts the others, until one of them has collected."""


def _is_compiled() -> bool:
    return any((TESTS / "__pycache__").glob("test_*.pyc"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Have all but the first process wait."""
    if node.gateway.id == "gw0" and not _is_compiled():
        _lock.append(os.open(__file__, os.O_RDONLY))
        fcntl.flock(_lock[0], fcntl.LOCK_EX)
    node.workerinput[_INPUT] = bool(_lock) and node.gateway.id != "gw0"


def wait_for_first(config: pytest.Config) -> None:
    """Return when the first process has collected; at once in itself."""
    if getattr(config, "workerinput", {}).get(_INPUT):
        with Path(__file__).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished() -> None:
    """Let the others collect."""
    while _lock:
        os.close(_lock.pop())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown() -> None:
    """Let the others collect where the first process came to no end."""
    pytest_xdist_node_collection_finished()
