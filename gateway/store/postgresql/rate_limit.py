"""Rate limits that replicas share through PostgreSQL: the algorithm of `gateway.rate_limit` as one
function of the database, on its clock. The function is in `migrations.py`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from urllib.parse import quote

from gateway.oauth.models import StoreUnavailableError
from gateway.rate_limit import Clock, Demand, Quota, decide, tightest
from gateway.store.link import Connection
from gateway.store.postgresql.link import PostgresLink

MAX_CONNECTIONS = 5
"""Of a process: calls are short."""
PURGE_S = 60.0
"""About this often, each process removes buckets that are empty again."""
PURGE_BATCH = 10_000
_ACQUIRE = "SELECT levels FROM gateway.acquire($1, $2, $3)"
_PURGE = (
    "DELETE FROM gateway.rate_limits WHERE key IN (SELECT key FROM gateway.rate_limits"
    " WHERE empty_at < extract(epoch FROM clock_timestamp()) LIMIT $1 FOR UPDATE SKIP LOCKED)"
)


class PostgresRateLimits:
    """Implements `gateway.rate_limit.SharedRateLimits`."""

    def __init__(self, link: PostgresLink, *, clock: Clock = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._purge_at = clock() + PURGE_S * random.random()  # noqa: S311
        self._purging: asyncio.Task[None] | None = None

    @property
    def is_away(self) -> bool:
        return self._link.is_resting

    async def acquire(self, demands: Sequence[Demand]) -> Quota:
        keys = [_key(demand) for demand in demands]
        leaks = [demand.limit.interval_s for demand in demands]
        bursts = [float(demand.limit.burst) for demand in demands]

        async def work(db: Connection) -> list[float]:
            return list(await db.fetchval(_ACQUIRE, keys, leaks, bursts))

        levels = await self._link.run(work)
        if self._clock() >= self._purge_at:
            self._purge_at = self._clock() + PURGE_S * (0.5 + random.random())  # noqa: S311
            self._purging = asyncio.create_task(self.purge())
        return tightest(
            [decide(demand.limit, level) for demand, level in zip(demands, levels, strict=True)]
        )

    async def purge(self) -> None:
        """Remove buckets that are empty, which are as good as none."""
        with contextlib.suppress(StoreUnavailableError):
            await self._link.run(lambda db: db.execute(_PURGE, PURGE_BATCH))

    async def close(self) -> None:
        """Close every connection."""
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.wait([self._purging])
        await self._link.close()


def _key(demand: Demand) -> str:
    # A limit that changes begins with an empty bucket, as it does locally.
    limit = f"{demand.limit.requests}/{demand.limit.per_s:g}/{demand.limit.burst}"
    return f"{quote(demand.subject)}:{quote(demand.scope)}:{limit}"
