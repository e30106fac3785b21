"""What is done once for a gateway, however many processes it has: purge and census."""

from __future__ import annotations

import logging
import time

from gateway.app.chores import PeriodicTasks
from gateway.metrics import Metrics
from gateway.oauth.models import Clock, Record, Store

PURGE_S = 60.0
CENSUS_S = 15.0
PROBE_TTL_S = 30.0
SKEW_S = 60.0
"""How far the clock of another process may be behind: what ended more recently is not purged yet,
as it may still be valid there."""

_log = logging.getLogger(__name__)


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
        """Start the chores."""
        self._periodic.repeat(self.purge, PURGE_S)
        self._periodic.repeat(self.count_clients, CENSUS_S)
        self._periodic.repeat(self.probe, CENSUS_S)
        self._periodic.repeat(self.inspect, CENSUS_S)

    async def stop(self) -> None:
        """End the chores."""
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
            self._is_inspected = True

    async def purge(self) -> None:
        """Remove what expired, so that the store does not grow for ever."""
        now = self._wall_clock()
        purged = await self._store.purge(
            tokens_before=now - SKEW_S, clients_before=now - self._expired_client_retention_s
        )
        self._metrics.store.tokens_purged.inc(purged.tokens)
        if purged.clients:
            _log.info("purged %d clients whose registration ended long ago", purged.clients)

    async def count_clients(self) -> None:
        """Count the clients, and warn of each whose registration ends soon, once."""
        now = self._wall_clock()
        soon = now + self._client_expiry_warning_s
        census = await self._store.census(now=now, expiring_before=soon)
        self._metrics.provider.clients.set(census.total)
        self._metrics.provider.clients_expired.set(census.expired)
        self._metrics.provider.clients_expiring.set(census.expiring)
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


async def probe_writes(store: Store, now: float) -> None:
    """Write a record that expires soon. Raises `StoreUnavailableError`."""
    await store.put_record(Record("probe", "writes", "", b"", now + PROBE_TTL_S))
