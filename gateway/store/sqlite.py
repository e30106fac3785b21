"""Clients and tokens in one SQLite file, for one process or several on one host.

WAL mode: readers never wait for the writer. Kept are digests of tokens and argon2id
hashes of secrets, never either in clear. Client writes are durable before they are
acknowledged; token writes survive the end of the process (see `Writer.run`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gateway.oauth.models import (
    AccessToken,
    Change,
    Client,
    ClientCensus,
    ClientChange,
    ClientExistsError,
    ClientGoneError,
    Clock,
    Purged,
    StoreError,
    StoreUnavailableError,
    TokenChange,
)
from gateway.store.migrations import migrate
from gateway.store.sqlite_rows import (
    SELECT_CLIENTS,
    as_client,
    find_client,
    find_token,
    insert_client,
)
from gateway.store.sqlite_threads import Readers, Work, Writer, snapshot

Result = TypeVar("Result")
Observe = Callable[[str, float], None]

PURGE_BATCH = 1000
PURGE_PAGES = 1000
CHECK_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked when opened; larger ones would hold up the start, and
damage in them is met when it is read: as a store that does not answer."""
CHANGE_RETENTION_S = 600.0
"""How long a process may be stopped and still learn exactly what it missed."""


class SqliteStore:
    """The store behind `sqlite:///PATH`. Implements `gateway.oauth.models.Store`."""

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        *,
        observe: Observe,
        on_outcome: Callable[[bool], None],
        on_change: Callable[[Change], None],
        wall_clock: Clock,
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._observe = observe
        self._on_outcome = on_outcome
        self._on_change = on_change
        self._wall_clock = wall_clock

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        observe: Observe = lambda operation, seconds: None,
        on_outcome: Callable[[bool], None] = lambda is_up: None,
        on_change: Callable[[Change], None] = lambda change: None,
        busy_timeout_s: float = 1.0,
        wall_clock: Clock = time.time,
    ) -> SqliteStore:
        """Open the file, creating or migrating it.

        Raises `StoreError` for a file that can't be opened, is no database, or was written
        by a later version. A damaged file is never replaced.
        """

        def connect() -> sqlite3.Connection:
            return _connect(path, busy_timeout_s)

        try:
            _create(path)
            connection = connect()
            try:
                _set_up_file(connection)
                migrate(connection)
                _check(connection, path)
            finally:
                connection.close()
            writer, readers = Writer(connect), Readers(connect)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from None
        return cls(
            writer,
            readers,
            observe=observe,
            on_outcome=on_outcome,
            on_change=on_change,
            wall_clock=wall_clock,
        )

    # Clients.

    async def get_client(self, client_id: str) -> Client | None:
        """See `ClientStore`."""
        return await self._read("get_client", lambda db: find_client(db, client_id))

    async def add_client(self, client: Client) -> None:
        """See `ClientStore`."""

        def work(db: sqlite3.Connection) -> None:
            try:
                insert_client(db, client, client.generation)
            except sqlite3.IntegrityError:
                raise ClientExistsError from None

        await self._write("add_client", work, is_durable=True)

    async def replace_client(self, client: Client) -> int:
        """See `ClientStore`."""

        def work(db: sqlite3.Connection) -> int:
            old = find_client(db, client.client_id)
            revoked = self._remove_client(db, client.client_id) if old else 0
            insert_client(db, client, old.generation + 1 if old else client.generation)
            return revoked

        revoked = await self._write("replace_client", work, is_durable=True)
        self._on_change(ClientChange(client.client_id))
        return revoked

    async def delete_client(self, client_id: str) -> int | None:
        """See `ClientStore`."""

        def work(db: sqlite3.Connection) -> int | None:
            if find_client(db, client_id) is None:
                return None
            return self._remove_client(db, client_id)

        revoked = await self._write("delete_client", work, is_durable=True)
        if revoked is not None:
            self._on_change(ClientChange(client_id))
        return revoked

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        """See `ClientStore`."""
        query = f"{SELECT_CLIENTS} WHERE client_id > ? ORDER BY client_id LIMIT ?"
        return await self._read(
            "list_clients", lambda db: [as_client(row) for row in db.execute(query, (after, limit))]
        )

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        """See `ClientStore`."""

        def work(db: sqlite3.Connection) -> Client | None:
            db.execute(
                "UPDATE clients SET expires_at = ? WHERE client_id = ?", (expires_at, client_id)
            )
            return find_client(db, client_id)

        return await self._write("set_client_expiry", work, is_durable=True)

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        """See `ClientStore`."""

        def work(db: sqlite3.Connection) -> Client | None:
            db.execute(
                "UPDATE clients SET secret_hash = ?, generation = generation + 1"
                " WHERE client_id = ?",
                (secret_hash, client_id),
            )
            return find_client(db, client_id)

        return await self._write("set_client_secret", work, is_durable=True)

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        """See `ClientStore`."""
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
        """See `ClientStore`."""
        query = (
            f"{SELECT_CLIENTS} WHERE expires_at > ? AND expires_at < ? ORDER BY expires_at LIMIT ?"
        )
        return await self._read(
            "expiring_clients",
            lambda db: [as_client(row) for row in db.execute(query, (now, before, limit))],
        )

    # Tokens.

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        """See `TokenStore`."""
        values = (
            token.digest, token.client_id, " ".join(token.scopes),
            token.issued_at, token.expires_at, token.client_id, generation,
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> None:
            added = db.execute(
                "INSERT INTO tokens SELECT ?, ?, ?, ?, ? WHERE EXISTS"
                " (SELECT 1 FROM clients WHERE client_id = ? AND generation = ?)",
                values,
            )
            if not added.rowcount:
                raise ClientGoneError

        await self._write("add_token", work, is_durable=False)

    async def get_token(self, digest: bytes) -> AccessToken | None:
        """See `TokenStore`."""
        return await self._read("get_token", lambda db: find_token(db, digest))

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        """See `TokenStore`."""

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
        """See `TokenStore`."""
        revoked = await self._write(
            "revoke_client_tokens",
            lambda db: self._remove_client_tokens(db, client_id),
            is_durable=True,
        )
        self._on_change(ClientChange(client_id))
        return revoked

    # The process.

    async def purge(self, *, tokens_before: float, clients_before: float) -> Purged:
        """See `Store`. Goes in batches, so that others' writes need not wait for long."""
        tokens = await self._purge_batches("tokens", "digest", tokens_before)
        clients = await self._purge_batches("clients", "client_id", clients_before)
        horizon = self._wall_clock() - CHANGE_RETENTION_S

        def tidy(db: sqlite3.Connection) -> None:
            # The newest row stays: it is where others' cursors are measured against.
            db.execute(
                "DELETE FROM changes WHERE at < ? AND seq < (SELECT max(seq) FROM changes)",
                (horizon,),
            )

        await self._write("purge", tidy, is_durable=False)
        if tokens or clients:
            await self._write("purge", _give_pages_back, is_durable=False)
        return Purged(tokens, clients)

    async def _purge_batches(self, table: str, key: str, before: float) -> int:
        statement = (
            f"DELETE FROM {table} WHERE {key} IN"  # noqa: S608 - both names are ours
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
        """See `Store`."""

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
                    "SELECT client_id, digest FROM changes WHERE seq > ? ORDER BY seq", (cursor,)
                ).fetchall()
            return newest, [
                ClientChange(client_id) if client_id is not None else TokenChange(digest)
                for client_id, digest in rows
            ]

        return await self._read("changes_since", work)

    async def ping(self) -> None:
        """See `Store`."""
        await self._read("ping", lambda db: db.execute("SELECT count(*) FROM clients").fetchone())

    async def close(self) -> None:
        """See `Store`."""
        await self._readers.close()
        await self._writer.close()

    async def _read(self, operation: str, work: Work[Result]) -> Result:
        return await self._measure(operation, self._readers.run(work))

    async def _write(self, operation: str, work: Work[Result], *, is_durable: bool) -> Result:
        return await self._measure(operation, self._writer.run(work, is_durable=is_durable))

    async def _measure(self, operation: str, running: Awaitable[Result]) -> Result:
        started = time.perf_counter()
        try:
            result = await running
        except StoreUnavailableError:
            self._on_outcome(False)
            raise
        finally:
            self._observe(operation, time.perf_counter() - started)
        self._on_outcome(True)
        return result

    def _remove_client(self, db: sqlite3.Connection, client_id: str) -> int:
        revoked = self._remove_client_tokens(db, client_id)
        db.execute("DELETE FROM clients WHERE client_id = ?", (client_id,))
        return revoked

    def _remove_client_tokens(self, db: sqlite3.Connection, client_id: str) -> int:
        now = self._wall_clock()
        (live,) = db.execute(
            "SELECT count(*) FROM tokens WHERE client_id = ? AND expires_at > ?", (client_id, now)
        ).fetchone()
        db.execute("DELETE FROM tokens WHERE client_id = ?", (client_id,))
        db.execute("INSERT INTO changes (client_id, at) VALUES (?, ?)", (client_id, now))
        return int(live)


def _create(path: Path) -> None:
    # Readable by the owner only: the hashes are not for everybody to try to break.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=busy_timeout_s,
        isolation_level=None,  # transactions are begun and ended in so many words
        check_same_thread=False,  # each belongs to one thread, but is closed by another
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _set_up_file(connection: sqlite3.Connection) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if not pages:
        # So that purging gives space back; has to come before any table. Asked for on every
        # start, it would need the write lock even where nothing changes.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > CHECK_BYTES:
        return
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreError(f"{path}: the database is damaged ({verdict}); restore it from a backup")


def _give_pages_back(db: sqlite3.Connection) -> None:
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free, PURGE_PAGES)):
        # The sqlite3 module takes a single step of this statement, which frees one page.
        db.execute("PRAGMA incremental_vacuum(1)")
