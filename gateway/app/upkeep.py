"""What each process that serves requests does beside it.

It keeps the keys of other issuers fresh, writes its access log out, tells the store which
clients it served, and measures how late its event loop is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from gateway.access_log import AccessLog
from gateway.app.chores import PeriodicTasks
from gateway.metrics import Metrics
from gateway.oauth.models import StoreUnavailableError

LAG_SAMPLE_S = 0.5
FLUSH_S = 0.2
KEYS_S = 5.0
USAGE_S = 10.0
PROBE_S = 5.0


class PerProcessTasks:
    """The chores of a process that serves requests."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        access_log: AccessLog,
        refresh_keys: Callable[[], Awaitable[None]],
        flush_usage: Callable[[], Awaitable[None]],
        probe_store: Callable[[], Awaitable[None]],
    ) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._refresh_keys = refresh_keys
        self._flush_usage = flush_usage
        self._probe_store = probe_store
        self._periodic = PeriodicTasks()

    def start(self) -> None:
        """Start the chores."""
        self._periodic.repeat(self._flush_access_log, FLUSH_S)
        self._periodic.repeat(self._refresh_keys, KEYS_S)
        self._periodic.repeat(self._flush_usage, USAGE_S)
        self._periodic.repeat(self._probe_store, PROBE_S)
        self._periodic.repeat(self._measure_lag, 0)

    async def stop(self) -> None:
        """End the chores."""
        await self._periodic.stop()
        with contextlib.suppress(StoreUnavailableError):
            await self._flush_usage()

    async def _flush_access_log(self) -> None:
        self._access_log.flush()

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_SAMPLE_S
        await asyncio.sleep(LAG_SAMPLE_S)
        self._metrics.process.event_loop_lag.observe(max(0.0, loop.time() - due))
