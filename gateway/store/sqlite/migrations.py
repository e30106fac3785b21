"""The schema of the SQLite store, as the list of steps that made it.

`PRAGMA user_version` counts the steps a file has seen. A step is never changed once
released; a new one is added below.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gateway.oauth.models import StoreError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE clients (
            client_id   TEXT PRIMARY KEY,
            client_name TEXT NOT NULL,
            secret_hash TEXT NOT NULL,          -- argon2id, PHC string format
            scopes      TEXT NOT NULL,          -- separated by spaces
            created_at  REAL NOT NULL,          -- Unix time, seconds, as all times here
            expires_at  REAL,                   -- NULL is never
            generation  INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX clients_by_expiry ON clients (expires_at) WHERE expires_at IS NOT NULL",
        """
        CREATE TABLE tokens (
            digest     BLOB PRIMARY KEY,        -- SHA-256 of the token, never the token
            client_id  TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
            scopes     TEXT NOT NULL,
            issued_at  REAL NOT NULL,
            expires_at REAL NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX tokens_by_client ON tokens (client_id)",
        "CREATE INDEX tokens_by_expiry ON tokens (expires_at)",
        """
        CREATE TABLE changes (                  -- what other processes must forget
            seq       INTEGER PRIMARY KEY AUTOINCREMENT,
            client_id TEXT,                     -- all tokens of this client, or
            digest    BLOB,                     -- this one token
            at        REAL NOT NULL
        )
        """,
    ),
    (
        "ALTER TABLE clients ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}'",  # JSON
        "ALTER TABLE tokens ADD COLUMN claims TEXT NOT NULL DEFAULT '{}'",  # JSON
        """
        CREATE TABLE records (                  -- small values that end, of many kinds
            kind       TEXT NOT NULL,
            key        TEXT NOT NULL,
            owner      TEXT NOT NULL,           -- client:ID or user:NAME
            value      BLOB NOT NULL,
            expires_at REAL,                    -- NULL is never
            version    INTEGER NOT NULL,
            PRIMARY KEY (kind, key)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX records_by_owner ON records (owner, kind, key)",
        "CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL",
        # Deleted, replaced or purged: what belongs to a client always goes with it.
        """
        CREATE TRIGGER client_takes_its_records AFTER DELETE ON clients
        BEGIN DELETE FROM records WHERE owner = 'client:' || OLD.client_id; END
        """,
    ),
    ("ALTER TABLE clients ADD COLUMN rate_limit TEXT",),  # JSON; NULL is the one of all clients
    (
        """
        CREATE TABLE client_usage (
            client_id     TEXT PRIMARY KEY REFERENCES clients ON DELETE CASCADE,
            last_used     REAL,                 -- NULL is never
            tokens_issued INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
    ),
    (
        # A token is valid only in the epoch of its client that it was issued in, a random number.
        # Replacing that revokes all tokens of the client in one small write, however many there
        # are; they are removed when they expire.
        "ALTER TABLE clients ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE tokens ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
        "DROP INDEX tokens_by_client",
        "CREATE INDEX tokens_by_client ON tokens (client_id, epoch, expires_at)",
        # Of all clients, so that it can also count them.
        "DROP INDEX clients_by_expiry",
        "CREATE INDEX clients_by_expiry ON clients (expires_at)",
        # Foreign keys are not enforced: they would remove the tokens in the same transaction.
        """
        CREATE TRIGGER client_takes_its_usage AFTER DELETE ON clients
        BEGIN DELETE FROM client_usage WHERE client_id = OLD.client_id; END
        """,
    ),
)

APPLICATION_ID = 0x42475457
"""`BGTW`, in the header of each file of ours (`PRAGMA application_id`)."""
_OUR_TABLES = frozenset({"clients", "tokens", "changes"})


class SchemaTooNewError(StoreError):
    """The file was written by a later version of the gateway."""


def check_owner(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `StoreError` for the database of another program; an empty file belongs to none."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION_ID:
        return
    tables = {
        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    }
    # Files of versions before the number was set have none.
    is_ours = not tables or tables >= _OUR_TABLES
    if application or not is_ours:
        found = ", ".join(sorted(tables)[:5])
        raise StoreError(
            f"{path}: this is the database of another program (application_id {application:#x}, "
            f"tables {found or 'none'}); point `store` at a file of its own"
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date.

    A file that is up to date is opened without any lock, so also while another process
    writes. Otherwise the version is read again under the write lock: of two processes
    which start together, one migrates and the other finds it done.

    Raises `SchemaTooNewError` and `sqlite3.Error`.
    """
    if _read_version(connection, path) == len(MIGRATIONS) and _is_marked(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in MIGRATIONS[_read_version(connection, path) :]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back already; the error to report is its own.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_marked(connection: sqlite3.Connection) -> bool:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return bool(application == APPLICATION_ID)


def _read_version(connection: sqlite3.Connection, path: Path) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise SchemaTooNewError(
            f"{path}: the store has schema version {version}, this gateway knows up to "
            f"{len(MIGRATIONS)}: run the newer gateway, or point `store` at another file"
        )
    return int(version)
