"""What the process does beside answering requests, each at its own pace.

A chore that fails is told and tried again: none of them may end because a store was
away for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.access_log import AccessLog
from gateway.metrics import Metrics
from gateway.oauth.models import Clock, Store, StoreUnavailableError

PURGE_S = 60.0
CENSUS_S = 15.0
LAG_SAMPLE_S = 0.5
FLUSH_S = 0.2

_log = logging.getLogger(__name__)


class Housekeeping:
    """The chores of one process."""

    def __init__(
        self,
        *,
        store: Store,
        metrics: Metrics,
        access_log: AccessLog,
        client_expiry_warning_s: float,
        expired_client_retention_s: float,
        wall_clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._access_log = access_log
        self._client_expiry_warning_s = client_expiry_warning_s
        self._expired_client_retention_s = expired_client_retention_s
        self._wall_clock = wall_clock
        self._tasks: list[asyncio.Task[None]] = []
        self._warned_of: set[str] = set()

    async def start(self) -> None:
        """Start the chores."""
        chores: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self.purge, PURGE_S),
            (self.count_clients, CENSUS_S),
            (self._flush_access_log, FLUSH_S),
        ]
        self._tasks = [asyncio.create_task(_repeat(chore, every)) for chore, every in chores]
        self._tasks.append(asyncio.create_task(self._measure_lag()))

    async def stop(self) -> None:
        """End the chores."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def purge(self) -> None:
        """Remove what expired, so that the store does not grow for ever."""
        now = self._wall_clock()
        purged = await self._store.purge(
            tokens_before=now, clients_before=now - self._expired_client_retention_s
        )
        self._metrics.tokens_purged.inc(purged.tokens)
        if purged.clients:
            _log.info("purged %d clients whose registration ended long ago", purged.clients)

    async def count_clients(self) -> None:
        """Count the clients, and warn of each whose registration ends soon, once."""
        now = self._wall_clock()
        soon = now + self._client_expiry_warning_s
        census = await self._store.census(now=now, expiring_before=soon)
        self._metrics.clients.set(census.total)
        self._metrics.clients_expired.set(census.expired)
        self._metrics.clients_expiring.set(census.expiring)
        expiring = {
            client.client_id: client.expires_at
            for client in await self._store.expiring_clients(now=now, before=soon)
        }
        for client_id, expires_at in expiring.items():
            if client_id not in self._warned_of:
                _log.warning(
                    "the registration of client %r ends on %s; renew it with "
                    "`gateway client renew`",
                    client_id,
                    time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(expires_at)),
                )
        self._warned_of = set(expiring)

    async def _flush_access_log(self) -> None:
        self._access_log.flush()

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SAMPLE_S
            await asyncio.sleep(LAG_SAMPLE_S)
            self._metrics.event_loop_lag.observe(max(0.0, loop.time() - due))


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
