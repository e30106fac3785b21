"""Clients and tokens in one SQLite file, for one process or several on one host.

WAL mode: readers never wait for the writer. Kept are digests of tokens and argon2id
hashes of secrets, never either in clear. Client writes are durable before they are
acknowledged; token writes survive the end of the process (see `Writer.run`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from gateway.oauth.models import Change, ClientChange, Purged, TokenChange
from gateway.store.sqlite.clients import SqliteClients
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.records import SqliteRecords
from gateway.store.sqlite.threads import snapshot
from gateway.store.sqlite.tokens import SqliteTokens
from gateway.store.sqlite.transfer import SqliteContent
from gateway.store.sqlite.usage import SqliteUsage

PURGE_BATCH = 1000
PURGE_PAGES = 1000
CHANGE_RETENTION_S = 600.0
"""How long a process may be stopped and still learn exactly what it missed."""


class SqliteStore:
    """The store behind `sqlite:///PATH`. Implements `gateway.store.transfer.TransferableStore`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self.tokens = SqliteTokens(file)
        self.records = SqliteRecords(file)
        self.clients = SqliteClients(file, self.tokens, self.records)
        self.usage = SqliteUsage(file)
        self.content = SqliteContent(file)

    async def purge(self, *, tokens_before: float, clients_before: float) -> Purged:
        """See `Store`. Goes in batches, so that others' writes need not wait for long."""
        tokens = await self._purge_batches("tokens", "digest", tokens_before)
        records = await self._purge_batches("records", "kind, key", tokens_before)
        clients = await self._purge_batches("clients", "client_id", clients_before)
        horizon = self._file.wall_clock() - CHANGE_RETENTION_S

        def tidy(db: sqlite3.Connection) -> None:
            # The newest row stays: it is where others' cursors are measured against.
            db.execute(
                "DELETE FROM changes WHERE at < ? AND seq < (SELECT max(seq) FROM changes)",
                (horizon,),
            )

        await self._file.write("purge", tidy, is_durable=False)
        if tokens or clients or records:
            await self._file.write("purge", _give_pages_back, is_durable=False)
        return Purged(tokens, clients, records)

    async def _purge_batches(self, table: str, key: str, before: float) -> int:
        statement = (
            f"DELETE FROM {table} WHERE ({key}) IN"  # noqa: S608 - both names are ours
            f" (SELECT {key} FROM {table} WHERE expires_at < ? LIMIT {PURGE_BATCH})"
        )
        removed = 0
        while True:
            batch = await self._file.write(
                "purge", lambda db: db.execute(statement, (before,)).rowcount, is_durable=False
            )
            removed += batch
            if batch < PURGE_BATCH:
                return removed

    async def changes_since(self, cursor: int | None) -> tuple[int, Sequence[Change] | None]:
        def work(db: sqlite3.Connection) -> tuple[int, Sequence[Change] | None]:
            with snapshot(db):
                # Apart: a SELECT of both reads the whole table.
                oldest, newest = db.execute(
                    "SELECT (SELECT min(seq) FROM changes), (SELECT max(seq) FROM changes)"
                ).fetchone()
                if cursor is None or oldest is None:
                    # No row at all is a file as new as its cursor, unless it was replaced.
                    return newest or 0, None if cursor else []
                if cursor > newest or cursor < oldest - 1:
                    # Replaced, or we slept for longer than changes are kept.
                    return newest, None
                rows = db.execute(
                    "SELECT client_id, digest, at FROM changes WHERE seq > ? ORDER BY seq",
                    (cursor,),
                ).fetchall()
            now = self._file.wall_clock()
            return newest, [_as_change(*row, now=now) for row in rows]

        return await self._file.read("changes_since", work)

    async def ping(self) -> None:
        await self._file.read(
            "ping", lambda db: db.execute("SELECT 1 FROM clients LIMIT 1").fetchone()
        )

    @property
    def rejects_writes(self) -> bool:
        return self._file.health.rejects_writes

    async def find_hazards(self) -> Sequence[str]:
        return []

    async def watch_changes(
        self, *, on_change: Callable[[], None], on_gap: Callable[[], None]
    ) -> None:
        """Returns at once: a file notifies no process of changes; they are found by
        `changes_since`."""

    async def close(self) -> None:
        await self._file.close()


def _as_change(client_id: str | None, digest: bytes, at: float, *, now: float) -> Change:
    age_s = max(0.0, now - at)
    return TokenChange(digest, age_s) if client_id is None else ClientChange(client_id, age_s)


def _give_pages_back(db: sqlite3.Connection) -> None:
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free, PURGE_PAGES)):
        # The sqlite3 module takes a single step of this statement, which frees one page.
        db.execute("PRAGMA incremental_vacuum(1)")
