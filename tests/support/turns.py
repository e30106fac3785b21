"""How much of a body is worked off in one turn of the event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from support.deadlines import within


def count_received(monkeypatch: pytest.MonkeyPatch, stream: type, name: str) -> Callable[[], int]:
    """Count the bytes of bodies that come to a method of a class of streams; returns a reader."""
    received, receive = 0, getattr(stream, name)

    def count(one: Any, data: bytes, *, ends: bool) -> None:
        nonlocal received
        received += len(data)
        receive(one, data, ends=ends)

    monkeypatch.setattr(stream, name, count)
    return lambda: received


async def most_in_a_turn(count: Callable[[], float], total: float) -> float:
    """Wait until `count` has come to `total`; returns by how much it rose in one turn at most."""
    seen = [count()]
    async with within():
        while count() < total:
            await asyncio.sleep(0)
            seen.append(count())
    return max(after - before for before, after in itertools.pairwise(seen))
