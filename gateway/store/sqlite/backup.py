"""Back up and restore a SQLite store while gateways use it.

Both copy by SQLite's online backup, not by files: a copy of the file lacks what is only in its
`-wal` yet, and a file that is copied over an open one is overwritten by the `-wal` again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from gateway.oauth.models import StoreError
from gateway.store.sqlite.errors import CLASSES, explain
from gateway.store.sqlite.migrations import check_owner, migrate

Result = TypeVar("Result")

BUSY_S = 10.0


Progress = Callable[[int, int], None]
"""Receives how many pages are copied, and how many there are."""
PAGES = 4096
"""How many are copied at a time where the progress is of interest."""


def back_up(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Write the store in the file `source`, as it is now, into the new file `target`.

    Raises `StoreError`: for a source that is no store or is damaged, and a target that exists.
    """
    if target.exists():
        raise StoreError(f"{target} exists already; a backup never replaces a file")
    with _opened(source) as store, _temporary(target) as copy:
        _copy(store, copy, target, progress)
        # Not before the copy is whole, and not over a file that was created meanwhile.
        _sync(copy)
        try:
            os.link(copy, target)
        except OSError as error:
            raise StoreError(f"{target}: {error.strerror}") from None


def restore(backup: Path, target: Path, progress: Progress | None = None) -> None:
    """Replace the content of the store in the file `target`, which need not exist, by that of
    `backup`, in one transaction.

    Gateways that have the file open read the restored content from then on, and drop what they
    have cached. Raises `StoreError`, and has changed nothing then.
    """
    with _opened(backup) as source, _temporary(target) as copy:
        _copy(source, copy, backup, progress)
        with _opened(copy) as prepared:
            _run(copy, lambda: migrate(prepared, copy))
            with _opened(target, must_exist=False) as live:
                _run(target, lambda: _restart_changes(prepared, live))
                _run(target, lambda: prepared.backup(live))
                _check(live, target)


def _restart_changes(prepared: sqlite3.Connection, live: sqlite3.Connection) -> None:
    """Let every process that follows the changes of the store miss one: then it drops all that it
    has cached, as it must."""
    newest = max(_newest_change(prepared), _newest_change(live))
    prepared.execute("DELETE FROM changes")
    prepared.execute(
        "INSERT INTO changes (seq, client_id, at) VALUES (?, '', ?)", (newest + 2, time.time())
    )


def _newest_change(connection: sqlite3.Connection) -> int:
    with contextlib.suppress(sqlite3.OperationalError):  # a new file has no tables
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'changes'"
        for (newest,) in connection.execute(query):
            return int(newest)
    return 0


def _copy(source: sqlite3.Connection, path: Path, named: Path, progress: Progress | None) -> None:
    """Copy a store into a file of its own, without a `-wal`, and check the copy."""

    def report(status: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    # One read transaction, so that writes meanwhile neither show nor begin the copy again.
    with contextlib.closing(_connect(path)) as copy:
        _run(named, lambda: source.execute("BEGIN"))
        _run(named, lambda: source.execute("SELECT 1 FROM sqlite_master").fetchone())
        _run(named, lambda: source.backup(copy, pages=PAGES if progress else -1, progress=report))
        _run(named, lambda: source.execute("COMMIT"))
        _run(named, lambda: copy.execute("PRAGMA journal_mode = DELETE"))
        _check(copy, named)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = _run(path, lambda: connection.execute("PRAGMA quick_check(1)").fetchone())
    if verdict != "ok":
        raise StoreError(f"{path}: the database is damaged ({verdict})")


@contextlib.contextmanager
def _opened(path: Path, *, must_exist: bool = True) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        if must_exist:
            raise StoreError(f"there is no database at {path.absolute()}")
        _run(path, lambda: os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)))
    with contextlib.closing(_run(path, lambda: _connect(path))) as connection:
        _run(path, lambda: check_owner(connection, path))
        yield connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)


def _run(path: Path, work: Callable[[], Result]) -> Result:
    try:
        return work()
    except (OSError, *CLASSES) as error:
        raise explain(error, path) from None


@contextlib.contextmanager
def _temporary(beside: Path) -> Iterator[Path]:
    """A new file, which only its owner reads, for as long as the context."""
    path = beside.with_name(f".{beside.name}.{os.getpid()}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    _run(beside, lambda: os.close(os.open(path, flags, 0o600)))
    try:
        yield path
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
