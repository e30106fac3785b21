"""Clients, tokens and records in PostgreSQL, for several replicas of the gateway.

Kept are digests of tokens and argon2id hashes of secrets, never either in clear. What changes
together is changed in one transaction. `docs/guides/postgresql.md` says what is guaranteed when the
database is unavailable, and after a failover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.oauth.models import Change, ClientChange, Purged, TokenChange
from gateway.store.link import Connection
from gateway.store.postgresql.calls import CHANNEL, PostgresCalls
from gateway.store.postgresql.clients import PostgresClients
from gateway.store.postgresql.push import watch
from gateway.store.postgresql.records import PostgresRecords
from gateway.store.postgresql.tokens import PostgresTokens
from gateway.store.postgresql.transfer import PostgresContent
from gateway.store.postgresql.usage import PostgresUsage

CHANGE_RETENTION_S = 600.0
"""How long a process may be stopped and still learn exactly what it missed."""
MAX_CHANGES = 5000
"""More than these are better met by asking for everything again."""
PURGE_BATCH = 1000
PURGE_LOCK = 0x42475459
"""Held by the one replica that purges."""
_PURGES = {
    "tokens": "DELETE FROM gateway.tokens WHERE digest IN (SELECT digest FROM gateway.tokens"
    " WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    "records": "DELETE FROM gateway.records WHERE (kind, key) IN (SELECT kind, key"
    " FROM gateway.records WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    # What belongs to a client goes with it.
    "clients": "WITH gone AS (DELETE FROM gateway.clients WHERE client_id IN"
    " (SELECT client_id FROM gateway.clients WHERE expires_at < $1 LIMIT $2"
    " FOR UPDATE SKIP LOCKED) RETURNING client_id),"
    " used AS (DELETE FROM gateway.client_usage WHERE client_id IN (SELECT client_id FROM gone)),"
    " owned AS (DELETE FROM gateway.records WHERE owner IN"
    " (SELECT 'client:' || client_id FROM gone))"
    " SELECT count(*) FROM gone",
}


class PostgresStore:
    """The store behind `postgresql://`. Implements `gateway.store.transfer.TransferableStore`."""

    def __init__(self, calls: PostgresCalls) -> None:
        self._calls = calls
        self.tokens = PostgresTokens(calls)
        self.records = PostgresRecords(calls)
        self.clients = PostgresClients(calls, self.tokens, self.records)
        self.usage = PostgresUsage(calls)
        self.content = PostgresContent(calls)

    async def purge(self, *, tokens_before: float, clients_before: float) -> Purged:
        """See `Store`. Goes in batches; while another replica purges, does nothing."""
        tokens = await self._purge_batches("tokens", tokens_before)
        records = await self._purge_batches("records", tokens_before)
        clients = await self._purge_batches("clients", clients_before)
        # The newest row stays: it is where others' cursors are measured against.
        await self._calls.execute(
            "purge",
            "DELETE FROM gateway.changes WHERE at < now() - make_interval(secs => $1)"
            " AND seq < (SELECT max(seq) FROM gateway.changes)",
            CHANGE_RETENTION_S,
        )
        return Purged(tokens, clients, records)

    async def _purge_batches(self, part: str, before: float) -> int:
        async def work(db: Connection) -> int:
            async with db.transaction():
                if not await db.fetchval("SELECT pg_try_advisory_xact_lock($1)", PURGE_LOCK):
                    return 0
                if part == "clients":
                    return int(await db.fetchval(_PURGES[part], before, PURGE_BATCH))
                status = await db.execute(_PURGES[part], before, PURGE_BATCH)
                return int(status.rpartition(" ")[2])

        removed = 0
        while True:
            batch = await self._calls.run("purge", work)
            removed += batch
            if batch < PURGE_BATCH:
                return removed

    async def changes_since(self, cursor: int | None) -> tuple[int, Sequence[Change] | None]:
        # One statement sees one state.
        rows = await self._calls.rows(
            "changes_since",
            "SELECT oldest, newest, seq, client_id, digest,"
            " extract(epoch FROM clock_timestamp() - at)::double precision FROM"
            " (SELECT (SELECT min(seq) FROM gateway.changes) AS oldest,"
            " (SELECT max(seq) FROM gateway.changes) AS newest) bounds"
            " LEFT JOIN gateway.changes ON seq > $1 ORDER BY seq LIMIT $2",
            *(cursor, MAX_CHANGES + 1),
        )
        oldest, newest = rows[0][:2]
        if cursor is None or oldest is None:
            # No row at all is a database as new as its cursor, unless it was replaced.
            return newest or 0, None if cursor else []
        if cursor > newest or cursor < oldest - 1 or len(rows) > MAX_CHANGES:
            # Replaced, or we slept for longer than changes are kept.
            return newest, None
        return newest, [_as_change(row) for row in rows if row[2] is not None]

    async def ping(self) -> None:
        await self._calls.value("ping", "SELECT 1 FROM gateway.clients LIMIT 1")

    @property
    def rejects_writes(self) -> bool:
        return self._calls.health.rejects_writes

    async def find_hazards(self) -> Sequence[str]:
        url = self._calls.link.url
        found = [
            f"PostgreSQL has {name} = off: after a power cut, its data may be damaged"
            for name in ("fsync", "full_page_writes")
            if await self._calls.value("ping", "SELECT current_setting($1)", name) == "off"
        ]
        if await self._calls.value("ping", "SELECT pg_is_in_recovery()"):
            found.append("PostgreSQL is a standby: it takes no writes")
        if not url.is_local and url.sslmode not in {"verify-ca", "verify-full"}:
            found.append(
                f"sslmode={url.sslmode} does not verify the server of the store: another on the "
                "way can take its place; use sslmode=verify-full"
            )
        return found

    async def watch_changes(
        self, *, on_change: Callable[[], None], on_gap: Callable[[], None]
    ) -> None:
        """See `Store`. PgBouncer passes no notifications on: then, changes are found by
        `changes_since` alone."""
        if not self._calls.link.url.is_pgbouncer:
            await watch(self._calls.link, CHANNEL, on_change, on_gap)

    async def close(self) -> None:
        await self._calls.close()


def _as_change(row: Sequence[Any]) -> Change:
    _, _, _, client_id, digest, age = row
    age_s = max(0.0, age)
    return TokenChange(digest, age_s) if client_id is None else ClientChange(client_id, age_s)
