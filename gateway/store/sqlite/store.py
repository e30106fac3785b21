"""Clients and tokens in one SQLite file, for one process or several on one host.

WAL mode: readers never wait for the writer. Kept are digests of tokens and argon2id
hashes of secrets, never either in clear. Client writes are durable before they are
acknowledged; token writes survive the end of the process (see `Writer.run`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from gateway.oauth.models import (
    AccessToken,
    Change,
    Client,
    ClientCensus,
    ClientChange,
    ClientExistsError,
    ClientGoneError,
    Purged,
    TokenChange,
    client_owner,
)
from gateway.rate_limit import RateLimit
from gateway.store.sqlite.records import SqliteRecords
from gateway.store.sqlite.rows import (
    SELECT_CLIENTS,
    TOKEN_COLUMNS,
    as_client,
    as_json,
    as_limit_text,
    find_client,
    find_token,
    insert_client,
    new_epoch,
)
from gateway.store.sqlite.threads import snapshot
from gateway.store.sqlite.transfer import SqliteTransfer
from gateway.store.sqlite.usage import SqliteUsage

PURGE_BATCH = 1000
PURGE_PAGES = 1000
CHANGE_RETENTION_S = 600.0
"""How long a process may be stopped and still learn exactly what it missed."""


class SqliteStore(SqliteRecords, SqliteTransfer, SqliteUsage):
    """The store behind `sqlite:///PATH`. Implements `gateway.oauth.models.Store`."""

    # Clients.

    async def get_client(self, client_id: str) -> Client | None:
        return await self._read("get_client", lambda db: find_client(db, client_id))

    async def add_client(self, client: Client) -> None:
        def work(db: sqlite3.Connection) -> None:
            try:
                insert_client(db, client, client.generation)
            except sqlite3.IntegrityError:
                raise ClientExistsError from None

        await self._write("add_client", work, is_durable=True)

    async def replace_client(self, client: Client) -> int:
        def work(db: sqlite3.Connection) -> int | None:
            old = find_client(db, client.client_id)
            epoch = self._remove_client(db, client.client_id) if old else None
            insert_client(db, client, old.generation + 1 if old else client.generation)
            return epoch

        await self._remove_most_records(client_owner(client.client_id))
        epoch = await self._write("replace_client", work, is_durable=True)
        self._on_change(ClientChange(client.client_id))
        return await self._count_ended(client.client_id, epoch)

    async def delete_client(self, client_id: str) -> int | None:
        def work(db: sqlite3.Connection) -> int | None:
            if find_client(db, client_id) is None:
                return None
            return self._remove_client(db, client_id)

        if await self.get_client(client_id) is None:
            return None
        await self._remove_most_records(client_owner(client_id))
        epoch = await self._write("delete_client", work, is_durable=True)
        if epoch is None:
            return None
        self._on_change(ClientChange(client_id))
        return await self._count_ended(client_id, epoch)

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        query = f"{SELECT_CLIENTS} WHERE client_id > ? ORDER BY client_id LIMIT ?"
        return await self._read(
            "list_clients", lambda db: [as_client(row) for row in db.execute(query, (after, limit))]
        )

    async def update_client(self, client: Client, *, generation: int) -> Client | None:
        values = (
            client.client_name, " ".join(client.scopes), as_json(client.metadata),
            client.expires_at, client.client_id, generation,
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> Client | None:
            updated = db.execute(
                "UPDATE clients SET client_name = ?, scopes = ?, metadata = ?, expires_at = ?,"
                " generation = generation + 1 WHERE client_id = ? AND generation = ?",
                values,
            )
            return find_client(db, client.client_id) if updated.rowcount else None

        return await self._write("update_client", work, is_durable=True)

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        def work(db: sqlite3.Connection) -> Client | None:
            db.execute(
                "UPDATE clients SET expires_at = ? WHERE client_id = ?", (expires_at, client_id)
            )
            return find_client(db, client_id)

        return await self._write("set_client_expiry", work, is_durable=True)

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        def work(db: sqlite3.Connection) -> Client | None:
            db.execute(
                "UPDATE clients SET secret_hash = ?, generation = generation + 1"
                " WHERE client_id = ?",
                (secret_hash, client_id),
            )
            return find_client(db, client_id)

        return await self._write("set_client_secret", work, is_durable=True)

    async def set_client_rate_limit(
        self, client_id: str, rate_limit: RateLimit | None
    ) -> Client | None:
        def work(db: sqlite3.Connection) -> Client | None:
            db.execute(
                "UPDATE clients SET rate_limit = ? WHERE client_id = ?",
                (as_limit_text(rate_limit), client_id),
            )
            client = find_client(db, client_id)
            if client is not None:
                self._announce(db, client_id)
            return client

        client = await self._write("set_client_rate_limit", work, is_durable=True)
        if client is not None:
            self._on_change(ClientChange(client_id))
        return client

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        query = (
            "SELECT (SELECT count(*) FROM clients),"
            " (SELECT count(*) FROM clients WHERE expires_at <= :now),"
            " (SELECT count(*) FROM clients WHERE expires_at > :now AND expires_at < :soon)"
        )
        values = {"now": now, "soon": expiring_before}
        return await self._read(
            "census", lambda db: ClientCensus(*db.execute(query, values).fetchone())
        )

    async def expiring_clients(
        self, *, now: float, before: float, limit: int = 20
    ) -> Sequence[Client]:
        query = (
            f"{SELECT_CLIENTS} WHERE expires_at > ? AND expires_at < ? ORDER BY expires_at LIMIT ?"
        )
        return await self._read(
            "expiring_clients",
            lambda db: [as_client(row) for row in db.execute(query, (now, before, limit))],
        )

    # Tokens.

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        values = (
            token.digest, token.client_id, " ".join(token.scopes),
            token.issued_at, token.expires_at, as_json(token.claims), token.client_id, generation,
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> None:
            added = db.execute(
                f"INSERT INTO tokens ({TOKEN_COLUMNS})"  # noqa: S608 - names of ours
                " SELECT ?, ?, ?, ?, ?, ?, epoch FROM clients"
                " WHERE client_id = ? AND generation = ?",
                values,
            )
            if not added.rowcount:
                raise ClientGoneError

        await self._write("add_token", work, is_durable=False)

    async def get_token(self, digest: bytes) -> AccessToken | None:
        return await self._read("get_token", lambda db: find_token(db, digest))

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        def work(db: sqlite3.Connection) -> AccessToken | None:
            token = find_token(db, digest)
            if token is not None:
                db.execute("DELETE FROM tokens WHERE digest = ?", (digest,))
                db.execute(
                    "INSERT INTO changes (digest, at) VALUES (?, ?)", (digest, self._wall_clock())
                )
            return token

        # A revocation that a power cut undoes would be a broken promise.
        token = await self._write("revoke_token", work, is_durable=True)
        if token is not None:
            self._on_change(TokenChange(digest))
        return token

    async def revoke_client_tokens(self, client_id: str) -> int:
        epoch = await self._write(
            "revoke_client_tokens", lambda db: self._begin_epoch(db, client_id), is_durable=True
        )
        self._on_change(ClientChange(client_id))
        return await self._count_ended(client_id, epoch)

    async def _count_ended(self, client_id: str, epoch: int | None) -> int:
        """How many tokens were live in an epoch that has ended. They are removed when they
        expire."""
        values = (client_id, epoch, self._wall_clock())
        (count,) = await self._read(
            "count_tokens",
            lambda db: db.execute(
                "SELECT count(*) FROM tokens WHERE client_id = ? AND epoch = ? AND expires_at > ?",
                values,
            ).fetchone(),
        )
        return int(count)

    # The process.

    async def purge(self, *, tokens_before: float, clients_before: float) -> Purged:
        """See `Store`. Goes in batches, so that others' writes need not wait for long."""
        tokens = await self._purge_batches("tokens", "digest", tokens_before)
        records = await self._purge_batches("records", "kind, key", tokens_before)
        clients = await self._purge_batches("clients", "client_id", clients_before)
        horizon = self._wall_clock() - CHANGE_RETENTION_S

        def tidy(db: sqlite3.Connection) -> None:
            # The newest row stays: it is where others' cursors are measured against.
            db.execute(
                "DELETE FROM changes WHERE at < ? AND seq < (SELECT max(seq) FROM changes)",
                (horizon,),
            )

        await self._write("purge", tidy, is_durable=False)
        if tokens or clients or records:
            await self._write("purge", _give_pages_back, is_durable=False)
        return Purged(tokens, clients, records)

    async def _purge_batches(self, table: str, key: str, before: float) -> int:
        statement = (
            f"DELETE FROM {table} WHERE ({key}) IN"  # noqa: S608 - both names are ours
            f" (SELECT {key} FROM {table} WHERE expires_at < ? LIMIT {PURGE_BATCH})"
        )
        removed = 0
        while True:
            batch = await self._write(
                "purge", lambda db: db.execute(statement, (before,)).rowcount, is_durable=False
            )
            removed += batch
            if batch < PURGE_BATCH:
                return removed

    async def changes_since(self, cursor: int | None) -> tuple[int, Sequence[Change] | None]:
        def work(db: sqlite3.Connection) -> tuple[int, Sequence[Change] | None]:
            with snapshot(db):
                oldest, newest = db.execute("SELECT min(seq), max(seq) FROM changes").fetchone()
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
            now = self._wall_clock()
            return newest, [_as_change(*row, now=now) for row in rows]

        return await self._read("changes_since", work)

    async def find_hazards(self) -> Sequence[str]:
        return []

    async def watch_changes(
        self, *, on_change: Callable[[], None], on_gap: Callable[[], None]
    ) -> None:
        """Returns at once: a file notifies no process of changes; they are found by
        `changes_since`."""

    def _remove_client(self, db: sqlite3.Connection, client_id: str) -> int | None:
        epoch = self._begin_epoch(db, client_id)
        db.execute("DELETE FROM clients WHERE client_id = ?", (client_id,))
        return epoch

    def _begin_epoch(self, db: sqlite3.Connection, client_id: str) -> int | None:
        """Revoke all tokens of a client. Returns the epoch that has ended."""
        row = db.execute("SELECT epoch FROM clients WHERE client_id = ?", (client_id,)).fetchone()
        db.execute("UPDATE clients SET epoch = ? WHERE client_id = ?", (new_epoch(), client_id))
        self._announce(db, client_id)
        return None if row is None else int(row[0])

    def _announce(self, db: sqlite3.Connection, client_id: str) -> None:
        at = self._wall_clock()
        db.execute("INSERT INTO changes (client_id, at) VALUES (?, ?)", (client_id, at))


def _as_change(client_id: str | None, digest: bytes, at: float, *, now: float) -> Change:
    age_s = max(0.0, now - at)
    return TokenChange(digest, age_s) if client_id is None else ClientChange(client_id, age_s)


def _give_pages_back(db: sqlite3.Connection) -> None:
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free, PURGE_PAGES)):
        # The sqlite3 module takes a single step of this statement, which frees one page.
        db.execute("PRAGMA incremental_vacuum(1)")
