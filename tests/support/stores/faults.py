"""Ways to take a SQLite store down while a gateway uses it, and to bring it back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from support.deadlines import scaled

TABLES = ("clients", "tokens", "changes", "records")


def break_store(path: Path) -> None:
    """From here on every operation fails: the tables are gone."""
    _rename(path, "{}", "{}_away")


def mend_store(path: Path) -> None:
    """Everything is as it was before."""
    _rename(path, "{}_away", "{}")


def _rename(path: Path, old: str, new: str) -> None:
    connection = sqlite3.connect(path, timeout=scaled(), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        connection.execute(f"ALTER TABLE {old.format(table)} RENAME TO {new.format(table)}")
    connection.execute("COMMIT")
    connection.close()
