"""What each process that serves requests does beside it: it follows the store's changes,
writes its access log out, and measures how late its event loop is."""

from __future__ import annotations

import asyncio

from gateway.access_log import AccessLog
from gateway.app.chores import Chores
from gateway.metrics import Metrics
from gateway.oauth.models import Store
from gateway.oauth.validator import BearerValidator

CHANGE_POLL_S = 0.25
"""A token revoked by another process is refused here after this at the latest."""
LAG_SAMPLE_S = 0.5
FLUSH_S = 0.2


class Upkeep:
    """The chores of a process that serves requests."""

    def __init__(
        self,
        *,
        store: Store,
        validator: BearerValidator,
        metrics: Metrics,
        access_log: AccessLog,
    ) -> None:
        self._store = store
        self._validator = validator
        self._metrics = metrics
        self._access_log = access_log
        self._chores = Chores()
        self._cursor: int | None = None

    async def start(self) -> None:
        """Start the chores. Raises `StoreUnavailableError` where the store does not answer."""
        # The cache is empty now: only what changes from here on matters.
        self._cursor, _ = await self._store.changes_since(None)
        self._chores.repeat(self.follow_changes, CHANGE_POLL_S)
        self._chores.repeat(self._flush_access_log, FLUSH_S)
        self._chores.repeat(self._measure_lag, 0)

    async def stop(self) -> None:
        """End the chores."""
        await self._chores.stop()

    async def follow_changes(self) -> None:
        """Forget cached tokens that another process revoked."""
        self._cursor, changes = await self._store.changes_since(self._cursor)
        if changes is None:
            self._validator.forget_all()
        else:
            for change in changes:
                self._validator.forget(change)

    async def _flush_access_log(self) -> None:
        self._access_log.flush()

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_SAMPLE_S
        await asyncio.sleep(LAG_SAMPLE_S)
        self._metrics.event_loop_lag.observe(max(0.0, loop.time() - due))
