"""One SQLite file: opened, created or migrated, with its writer and its readers.

WAL mode: readers never wait for the writer.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar

from gateway.oauth.models import Change, Clock, StoreError, StoreUnavailableError
from gateway.store.sqlite.migrations import migrate
from gateway.store.sqlite.threads import Readers, Work, Writer

Result = TypeVar("Result")
Observe = Callable[[str, float], None]

CHECK_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked when opened; larger ones would hold up the start, and
damage in them is met when it is read: as a store that does not answer."""


class SqliteFile:
    """What every part of the SQLite store works on."""

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
    ) -> Self:
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
