"""Whoever floods the hashing with wrong secrets has the others wait their turn, and no longer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.deadlines import until

from gateway.oauth.errors import TemporarilyUnavailableError
from gateway.oauth.fair_queue import FairQueue


class RequestFilter:
    """Work that ends when the test says so."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.is_open = threading.Event()

    def work(self, name: str) -> str:
        assert self.is_open.wait(10)
        self.done.append(name)
        return name


@pytest.fixture
def gate() -> RequestFilter:
    return RequestFilter()


@pytest.fixture
async def queue(gate: RequestFilter) -> AsyncIterator[FairQueue]:
    """One thread, which is busy, and room for four."""
    with ThreadPoolExecutor(1) as pool:
        queue = FairQueue(pool, threads=1, max_waiting=4)
        busy = asyncio.create_task(queue.run("busy", gate.work, "busy"))
        await asyncio.sleep(0)
        yield queue
        gate.is_open.set()
        await busy
        await until(lambda: len(queue) == 0)
        assert await queue.run("after", gate.work, "after") == "after"


async def fetch(queue: FairQueue, gate: RequestFilter, *names: str) -> list[asyncio.Task[str]]:
    """Tasks named `source-number`, in the queue."""
    tasks = [asyncio.create_task(queue.run(name[0], gate.work, name)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_sources_take_turns(queue: FairQueue, gate: RequestFilter) -> None:
    tasks = await fetch(queue, gate, "a1", "a2", "a3", "b1")
    gate.is_open.set()
    await asyncio.gather(*tasks)
    assert gate.done == ["busy", "a1", "b1", "a2", "a3"]


async def test_who_fills_the_queue_makes_room_for_others(
    queue: FairQueue, gate: RequestFilter
) -> None:
    flood = await fetch(queue, gate, "a1", "a2", "a3", "a4", "a5")
    with pytest.raises(TemporarilyUnavailableError):
        await flood[4]
    honest = await fetch(queue, gate, "b1")
    with pytest.raises(TemporarilyUnavailableError):
        await flood[3]
    gate.is_open.set()
    assert await honest[0] == "b1"
    assert [await task for task in flood[:3]] == ["a1", "a2", "a3"]


async def test_a_queue_that_all_share_alike_takes_no_more(
    queue: FairQueue, gate: RequestFilter
) -> None:
    tasks = await fetch(queue, gate, "a1", "b1", "c1", "d1", "e1")
    with pytest.raises(TemporarilyUnavailableError):
        await tasks[4]
    assert len(queue) == 4
    gate.is_open.set()
    await asyncio.gather(*tasks[:4])


async def test_who_goes_away_leaves_no_gap(queue: FairQueue, gate: RequestFilter) -> None:
    tasks = await fetch(queue, gate, "a1", "a2", "b1")
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.gather(tasks[0], tasks[2], return_exceptions=True)
    assert len(queue) == 1
    gate.is_open.set()
    assert await tasks[1] == "a2"
    assert gate.done == ["busy", "a2"]


async def test_a_turn_that_comes_as_its_owner_goes_away_is_handed_on(
    queue: FairQueue, gate: RequestFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = await fetch(queue, gate, "a1", "b1")
    hand_over = queue._hand_over

    def hand_over_to_who_leaves() -> None:
        hand_over()
        tasks[0].cancel()

    monkeypatch.setattr(queue, "_hand_over", hand_over_to_who_leaves)
    gate.is_open.set()
    assert await tasks[1] == "b1"
    assert tasks[0].cancelled()
    assert gate.done == ["busy", "b1"]
