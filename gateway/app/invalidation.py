"""Forgetting what other processes revoked.

The store's log of changes is read as soon as the store pushes the news, and anyway every
`CHANGE_POLL_S`: a token revoked elsewhere is refused here within a second also where the
store can't push, or its news are lost.
"""

from __future__ import annotations

import asyncio
import contextlib

from gateway.background import keep_running
from gateway.metrics import Metrics
from gateway.oauth.models import Store, StoreUnavailableError
from gateway.oauth.token_cache import TokenCache

CHANGE_POLL_S = 0.25
LONGEST_PAUSE_S = 0.5
"""Between two attempts to read the log, whatever they fail of: a revocation is to reach every
process within a second."""


class Invalidation:
    """Keeps the token cache of a process true to the store."""

    def __init__(
        self,
        store: Store,
        validator: TokenCache,
        metrics: Metrics,
        *,
        poll_s: float = CHANGE_POLL_S,
    ) -> None:
        self._store = store
        self._validator = validator
        self._lag = metrics.store.cache_invalidation_lag
        self._sweeps = metrics.store.cache_sweeps
        self._poll_s = poll_s
        self._cursor: int | None = None
        self._has_news = asyncio.Event()
        self._is_failing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start to follow the log, whether the store responds yet or not."""
        # The cache is empty now: only what changes from here on matters.
        with contextlib.suppress(Exception):  # the follower meets it again, and logs it
            await self._follow()
        self._is_failing = self._cursor is None
        self._tasks = [
            asyncio.create_task(
                keep_running("invalidation", self._run, longest_pause_s=LONGEST_PAUSE_S)
            ),
            asyncio.create_task(keep_running("changes pushed by the store", self._watch)),
        ]

    async def stop(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def sweep(self) -> None:
        """Forget everything: some changes may have been missed."""
        self._sweeps.inc()
        self._validator.forget_all()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._has_news.wait()
            self._has_news.clear()
            await self._follow()

    async def _watch(self) -> None:
        await self._store.watch_changes(on_change=self._has_news.set, on_gap=self.sweep)

    async def _follow(self) -> None:
        try:
            cursor, changes = await self._store.changes_since(self._cursor)
        except StoreUnavailableError:  # which the store has logged
            self._is_failing = True
            return
        if self._is_failing and self._cursor is None:
            # It was unavailable when we started: changes of what was cached since then were missed.
            changes = None
        self._is_failing = False
        self._cursor = cursor
        if changes is None:
            self.sweep()
            return
        try:
            for change in changes:
                self._validator.forget(change)
                self._lag.observe(change.age_s)
        except BaseException:
            self.sweep()  # the cursor is past them
            raise
