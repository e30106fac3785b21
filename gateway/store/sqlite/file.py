"""One SQLite file: opened, created or migrated, with its writer and its readers.

WAL mode: readers never wait for the writer.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TypeVar, Unpack

from gateway.oauth.models import Change, StoreError, StoreUnavailableError
from gateway.store.operations import Reports, StoreOperations, has_changed
from gateway.store.sqlite.errors import CLASSES, explain
from gateway.store.sqlite.migrations import check_owner, migrate
from gateway.store.sqlite.statements import announce
from gateway.store.sqlite.threads import Readers, Work, Writer

Result = TypeVar("Result")

CHECK_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked when opened; larger ones would hold up the start, and
damage in them is met when it is read: as a store that does not respond."""


class SqliteFile(StoreOperations):
    """The file that all parts of the store read and write, each operation measured."""

    def __init__(
        self,
        path: Path,
        *,
        must_exist: bool = False,
        busy_timeout_s: float = 1.0,
        **reports: Unpack[Reports],
    ) -> None:
        """Open the file, creating it (unless it `must_exist`) or migrating it; `reports` are those
        of `StoreOperations`.

        Raises `StoreError` for a file that can't be opened, is no database of a gateway, or was
        written by a later version. A damaged file is never replaced.
        """

        def connect() -> sqlite3.Connection:
            identity.check()
            return _connect(path, busy_timeout_s)

        try:
            _create(path, must_exist=must_exist)
            identity = FileIdentity(path)
            connection = connect()
            try:
                check_owner(connection, path)
                _set_up_file(connection)
                migrate(connection, path)
                _check(connection, path)
            finally:
                connection.close()
            check = identity.check
            self.writer, self.readers = Writer(connect, check), Readers(connect, check)
        except (OSError, *CLASSES) as error:
            raise explain(error, path) from None
        super().__init__(**reports)

    async def read(self, operation: str, work: Work[Result]) -> Result:
        """Do `work` on a snapshot. Raises `StoreUnavailableError`."""
        return await self.measure(operation, self.readers.run(work))

    async def write(self, operation: str, work: Work[Result], *, is_durable: bool) -> Result:
        """Do `work` in a transaction, see `Writer.run`. Raises what `work` raises, and
        `StoreUnavailableError`."""
        return await self.measure(operation, self.writer.run(work, is_durable=is_durable))

    async def change(self, operation: str, work: Work[Result], change: Change | None) -> Result:
        """Do `work` in a transaction that survives a power cut, and announce `change`, if any, in
        the same, to every process, where the result says that there was something to change."""

        def announced(db: sqlite3.Connection) -> Result:
            result = work(db)
            if change is not None and has_changed(result):
                announce(db, change, self.wall_clock())
            return result

        result = await self.write(operation, announced, is_durable=True)
        if change is not None and has_changed(result):
            self.on_change(change)
        return result

    async def close(self) -> None:
        """Finish what was accepted, then close."""
        await self.readers.close()
        await self.writer.close()


class FileIdentity:
    """Which file a path led to when it was opened.

    A file that is deleted, or replaced by another, is still there for processes that have it open:
    what is written to it is lost with the process, and other processes see another file.
    """

    def __init__(self, path: Path) -> None:
        """Raises `OSError`."""
        self._path = path
        self._opened = self._read()

    def check(self) -> None:
        """Raises `StoreUnavailableError` where the path leads to another file by now, or none."""
        try:
            is_same = self._read() == self._opened
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._path}: {error.strerror}; the database was moved or deleted while it was "
                "open: put it back, or restart the gateway"
            ) from None
        if not is_same:
            raise StoreUnavailableError(
                f"{self._path} is another file than the one that was opened; restart the gateway "
                "to use it (to restore a backup under a running gateway, use `gateway restore`)"
            )

    def _read(self) -> tuple[int, int]:
        found = os.stat(self._path)
        return found.st_dev, found.st_ino


def _create(path: Path, *, must_exist: bool) -> None:
    if must_exist and not path.exists():
        raise StoreError(f"there is no database at {path.absolute()}")
    # Readable by the owner only: others must not be able to attack the hashes.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=busy_timeout_s,
        isolation_level=None,  # transactions are begun and ended in so many words
        check_same_thread=False,  # each belongs to one thread, but is closed by another
    )
    # What goes with a client, triggers remove; its tokens end with their epoch (see `migrations`).
    connection.execute("PRAGMA foreign_keys = OFF")
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
