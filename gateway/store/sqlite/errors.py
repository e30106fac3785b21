"""Turn what SQLite and its Python module raise into errors of the store, with their reasons.

The one place that knows their exceptions. SQLite's own messages name tables and files, never
values, so they may be shown.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from gateway.oauth.models import StoreError, StoreRejectedError, StoreUnavailableError

CLASSES = (sqlite3.Error, sqlite3.Warning)
"""`sqlite3.Warning` is no `sqlite3.Error`."""

_REJECTIONS = frozenset({
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_DELETE,
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_BEGIN_ATOMIC,
    sqlite3.SQLITE_IOERR_COMMIT_ATOMIC,
})  # fmt: skip
"""Result codes, primary or extended, that a failed write has on a file that can be read. All
others, such as ERROR (no such table), CORRUPT, NOTADB, CANTOPEN and IOERR_READ, say that reads
fail, too."""


def as_store_error(error: Exception, *, is_write: bool = False) -> Exception:
    """Translate SQLite's errors; others are returned as they are.

    A write that failed on a file that can still be read is `StoreRejectedError`, everything else
    `StoreUnavailableError`.
    """
    if isinstance(error, StoreError) or not isinstance(error, CLASSES):
        return error
    kind = StoreRejectedError if is_write and _is_rejection(error) else StoreUnavailableError
    return kind(f"SQLite: {error}")


def _is_rejection(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_READONLY_DBMOVED:  # another file is at its path
        return False
    return code in _REJECTIONS or code & 0xFF in _REJECTIONS


def explain(error: Exception, path: Path) -> StoreError:
    """Say why the file at `path` can't be opened, and what to do about it."""
    if isinstance(error, OSError):
        return StoreError(f"{path}: {error.strerror}")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
        for place in (path, path.parent):
            if place.exists() and not _is_writable(place):
                return StoreError(
                    f"{path}: {place} is not writable; SQLite writes the file and, beside it, "
                    f"{path.name}-wal and {path.name}-shm"
                )
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path}: not a database of SQLite; point `store` at another file")
    if code == sqlite3.SQLITE_BUSY:
        return StoreError(f"{path}: another process holds a lock on the database")
    return StoreError(f"{path}: {error}")


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
