"""Periodic tasks: what runs beside requests, in each process and once for a gateway.

A task that fails is logged and tried again: none of them may end because a store was
unavailable for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.access_log import AccessLog
from gateway.app.loop_stalls import StallWatch
from gateway.background import FIRST_PAUSE_S, LONGEST_PAUSE_S, RetryPauses
from gateway.metrics import Metrics
from gateway.oauth.models import Clock, Record, Store, StoreUnavailableError
from gateway.oauth.unused_clients import purge_unused
from gateway.store.transfer import UNFINISHED, is_unfinished

LAG_SAMPLE_S = 0.5
FLUSH_S = 0.2
KEYS_S = 5.0
USAGE_S = 10.0
PROBE_S = 5.0
PURGE_S = 60.0
CENSUS_S = 15.0
PROBE_TTL_S = 30.0
SKEW_S = 60.0
"""How far the clock of another process may be behind: what ended more recently is not purged yet,
as it may still be valid there."""

_log = logging.getLogger(__name__)


class PeriodicTasks:
    """Tasks that run until they are stopped."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def repeat(self, task: Callable[[], Awaitable[None]], every_s: float) -> None:
        """Run a task now and every `every_s` seconds."""
        self._tasks.append(asyncio.create_task(_repeat(task, every_s)))

    async def stop(self) -> None:
        """Stop the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


async def _repeat(task: Callable[[], Awaitable[None]], every_s: float) -> None:
    name = getattr(task, "__name__", type(task).__name__).lstrip("_")
    retries = RetryPauses(
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


class PerProcessTasks:
    """The periodic tasks of a process that serves requests."""

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
        self._stalls = StallWatch()
        metrics.process.longest_stall.set_function(self._stalls.longest_s)

    def start(self) -> None:
        """Start the tasks."""
        self._stalls.start()
        self._periodic.repeat(self._flush_access_log, FLUSH_S)
        self._periodic.repeat(self._refresh_keys, KEYS_S)
        self._periodic.repeat(self._flush_usage, USAGE_S)
        self._periodic.repeat(self._probe_store, PROBE_S)
        self._periodic.repeat(self._measure_lag, 0)

    async def stop(self) -> None:
        """Stop the tasks."""
        self._stalls.stop()
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


class PerGatewayTasks:
    """Keeps the store small, and warns of clients that are about to end."""

    def __init__(
        self,
        *,
        store: Store,
        metrics: Metrics,
        client_expiry_warning_s: float,
        expired_client_retention_s: float,
        wall_clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._client_expiry_warning_s = client_expiry_warning_s
        self._expired_client_retention_s = expired_client_retention_s
        self._wall_clock = wall_clock
        self._periodic = PeriodicTasks()
        self._warned_of: set[str] = set()
        self._is_inspected = False

    def reconfigure(
        self, *, client_expiry_warning_s: float, expired_client_retention_s: float
    ) -> None:
        """Go by other times from the next round on."""
        self._client_expiry_warning_s = client_expiry_warning_s
        self._expired_client_retention_s = expired_client_retention_s

    def start(self) -> None:
        """Start the tasks."""
        self._periodic.repeat(self.purge, PURGE_S)
        self._periodic.repeat(self.count_clients, CENSUS_S)
        self._periodic.repeat(self.probe, CENSUS_S)
        self._periodic.repeat(self.inspect, CENSUS_S)

    async def stop(self) -> None:
        """Stop the tasks."""
        await self._periodic.stop()

    async def probe(self) -> None:
        """Write something small, so that a store which rejects writes is noticed without traffic,
        and so is its recovery."""
        await probe_writes(self._store, self._wall_clock())

    async def inspect(self) -> None:
        """Warn of what endangers the data of the store, once."""
        if not self._is_inspected:
            for hazard in await self._store.find_hazards():
                _log.warning("%s", hazard)
            if await is_unfinished(self._store):
                _log.warning("%s", UNFINISHED)
            self._is_inspected = True

    async def purge(self) -> None:
        """Remove what expired, so that the store does not grow for ever."""
        now = self._wall_clock()
        purged = await self._store.purge(
            tokens_before=now - SKEW_S, clients_before=now - self._expired_client_retention_s
        )
        self._metrics.store.tokens_purged.inc(purged.tokens)
        unused = await purge_unused(self._store, now - SKEW_S)
        if unused:
            _log.info("purged %d clients that registered themselves and were never used", unused)
        if purged.clients:
            _log.info("purged %d clients whose registration expired long ago", purged.clients)

    async def count_clients(self) -> None:
        """Count the clients, and warn of each whose registration ends soon, once."""
        now = self._wall_clock()
        soon = now + self._client_expiry_warning_s
        census = await self._store.clients.census(now=now, expiring_before=soon)
        self._metrics.provider.clients.set(census.total)
        self._metrics.provider.clients_expired.set(census.expired)
        self._metrics.provider.clients_expiring.set(census.expiring)
        expiring = {
            client.client_id: client.expires_at
            for client in await self._store.clients.expiring_clients(now=now, before=soon)
        }
        for client_id, expires_at in expiring.items():
            if client_id not in self._warned_of:
                _log.warning(
                    "the registration of client %r expires on %s; renew it with "
                    "`gateway client renew`",
                    client_id,
                    time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(expires_at)),
                )
        self._warned_of = set(expiring)


async def probe_writes(store: Store, now: float) -> None:
    """Write a record that expires soon. Raises `StoreUnavailableError`."""
    await store.records.put_record(Record("probe", "writes", "", b"", now + PROBE_TTL_S))
