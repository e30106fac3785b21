"""What a process does beside answering requests, each chore at its own pace.

A chore that fails is told and tried again: none of them may end because a store was
away for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.background import FIRST_PAUSE_S, LONGEST_PAUSE_S, Retries
from gateway.oauth.models import StoreUnavailableError


class PeriodicTasks:
    """Chores that run until they are stopped."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def repeat(self, task: Callable[[], Awaitable[None]], every_s: float) -> None:
        """Do a chore now and every `every_s` seconds."""
        self._tasks.append(asyncio.create_task(_repeat(task, every_s)))

    async def stop(self) -> None:
        """End the chores."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


async def _repeat(task: Callable[[], Awaitable[None]], every_s: float) -> None:
    name = getattr(task, "__name__", type(task).__name__).lstrip("_")
    retries = Retries(
        name,
        first_pause_s=max(every_s, FIRST_PAUSE_S),
        longest_pause_s=max(every_s, LONGEST_PAUSE_S),
    )
    while True:
        pause_s = every_s
        try:
            await task()
        except StoreUnavailableError:
            pass  # which the store has logged
        except Exception as error:
            pause_s = max(every_s, retries.fail(error))
        else:
            retries.succeed()
        await asyncio.sleep(pause_s)
