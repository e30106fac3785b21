"""Work that waits for a few threads, of which each source gets its share.

A client that sends wrong secrets by the thousand may keep the threads busy, and fills the queue. It
must not be full for all others: sources take turns, and where there is no more room, what goes
is the newest of the source that has most waiting.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from gateway.oauth.errors import TemporarilyUnavailableError

Result = TypeVar("Result")


class FairQueue:
    """Runs work in `threads` threads of `pool`; up to `max_waiting` may wait for them."""

    def __init__(self, pool: Executor, *, threads: int, max_waiting: int) -> None:
        self._pool = pool
        self._threads = threads
        self._max_waiting = max_waiting
        self._running = 0
        self._waiting = 0
        # In the order of their turns; none is empty.
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def __len__(self) -> int:
        return self._waiting

    async def run(self, source: str, work: Callable[..., Result], *arguments: str) -> Result:
        """The result of some work for `source`. Raises `TemporarilyUnavailableError` where it
        would have to wait too long."""
        if self._running < self._threads:
            self._running += 1
        else:
            await self._wait(source)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, work, *arguments)
        finally:
            self._hand_over()

    async def _wait(self, source: str) -> None:
        """Wait for a turn, which the previous one hands over."""
        if self._waiting >= self._max_waiting:
            self._make_room(source)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(source, deque()).append(turn)
        self._waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(source, turn)
            else:
                self._hand_over()
            raise

    def _make_room(self, source: str) -> None:
        greediest = max(self._queues, key=lambda other: len(self._queues[other]), default=source)
        own = len(self._queues.get(source, ()))
        if greediest == source or len(self._queues[greediest]) <= own + 1:
            raise TemporarilyUnavailableError(reason="hashing_overloaded")
        newest = self._queues[greediest][-1]
        self._remove(greediest, newest)
        if not newest.done():
            newest.set_exception(TemporarilyUnavailableError(reason="hashing_overloaded"))

    def _remove(self, source: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(source)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        self._waiting -= 1
        if not queue:
            del self._queues[source]

    def _hand_over(self) -> None:
        while self._queues:
            source, queue = next(iter(self._queues.items()))
            turn = queue[0]
            self._remove(source, turn)
            if source in self._queues:
                self._queues.move_to_end(source)
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1
