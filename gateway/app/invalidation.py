"""Forgetting what other processes revoked.

The store's log of changes is read as soon as the store pushes the news, and anyway every
`CHANGE_POLL_S`: a token revoked elsewhere is refused here within a second also where the
store can't push, or its news are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from gateway.metrics import Metrics
from gateway.oauth.models import Store, StoreUnavailableError
from gateway.oauth.validator import BearerValidator

CHANGE_POLL_S = 0.25

_log = logging.getLogger(__name__)


class Invalidation:
    """Keeps the token cache of a process true to the store."""

    def __init__(
        self,
        store: Store,
        validator: BearerValidator,
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
        """Start to follow the log, whether the store answers yet or not."""
        # The cache is empty now: only what changes from here on matters.
        await self._follow()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch())]

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
        try:
            await self._store.watch_changes(on_change=self._has_news.set, on_gap=self.sweep)
        except Exception:
            _log.exception("the store's news are no longer followed, only its log")

    async def _follow(self) -> None:
        try:
            cursor, changes = await self._store.changes_since(self._cursor)
        except StoreUnavailableError as error:
            if not self._is_failing:
                _log.warning("the store does not answer: %s", error)
            self._is_failing = True
            return
        except Exception:
            _log.exception("the log of changes could not be read")
            return
        if self._is_failing:
            _log.warning("the store answers again")
            if self._cursor is None:
                # It was away when we started: what was cached since then was followed by nobody.
                changes = None
        self._is_failing = False
        self._cursor = cursor
        if changes is None:
            self.sweep()
            return
        for change in changes:
            self._validator.forget(change)
            self._lag.observe(change.age_s)
