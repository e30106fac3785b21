"""What a process does beside answering requests, each chore at its own pace.

A chore that fails is told and tried again: none of them may end because a store was
away for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.oauth.models import StoreUnavailableError

_log = logging.getLogger(__name__)


class Chores:
    """Chores that run until they are stopped."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def repeat(self, chore: Callable[[], Awaitable[None]], every_s: float) -> None:
        """Do a chore now and every `every_s` seconds."""
        self._tasks.append(asyncio.create_task(_repeat(chore, every_s)))

    async def stop(self) -> None:
        """End the chores."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


async def _repeat(chore: Callable[[], Awaitable[None]], every_s: float) -> None:
    is_failing = False
    while True:
        try:
            await chore()
            is_failing = False
        except StoreUnavailableError as error:
            if not is_failing:
                _log.warning("the store does not answer: %s", error)
            is_failing = True
        except Exception:
            _log.exception("a chore failed")
        await asyncio.sleep(every_s)
