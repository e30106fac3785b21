"""Statements that the parts of the SQLite store share."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3

from gateway.oauth.models import AccessToken, Change, Client, ClientChange, Record, TokenChange
from gateway.store.rows import (
    CLIENT_COLUMNS,
    RECORD_COLUMNS,
    as_client,
    as_token,
    client_values,
    new_epoch,
)

SELECT_CLIENTS = f"SELECT {CLIENT_COLUMNS} FROM clients"
SELECT_TOKENS = (
    "SELECT digest, t.client_id, client_name, t.scopes, issued_at, t.expires_at, claims, rate_limit"
    " FROM tokens t JOIN clients c ON c.client_id = t.client_id AND c.epoch = t.epoch"
)


def insert_client(db: sqlite3.Connection, client: Client, generation: int) -> None:
    """Raises `sqlite3.IntegrityError` where the id is taken."""
    db.execute(
        f"INSERT INTO clients ({CLIENT_COLUMNS}, epoch) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*client_values(client, generation), new_epoch()),
    )


def find_client(db: sqlite3.Connection, client_id: str) -> Client | None:
    """The client of this id."""
    query = f"{SELECT_CLIENTS} WHERE client_id = ?"
    row = db.execute(query, (client_id,)).fetchone()
    return None if row is None else as_client(row)


def find_token(db: sqlite3.Connection, digest: bytes) -> AccessToken | None:
    """The token of this digest, with the name that its client has now."""
    row = db.execute(f"{SELECT_TOKENS} WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else as_token(row)


def begin_epoch(db: sqlite3.Connection, client_id: str) -> int | None:
    """Revoke all tokens of a client. Returns the epoch that has ended."""
    row = db.execute("SELECT epoch FROM clients WHERE client_id = ?", (client_id,)).fetchone()
    db.execute("UPDATE clients SET epoch = ? WHERE client_id = ?", (new_epoch(), client_id))
    return None if row is None else int(row[0])


def announce(db: sqlite3.Connection, change: Change, now: float) -> None:
    """Have every process evict what a change has made invalid."""
    client_id = change.client_id if isinstance(change, ClientChange) else None
    digest = change.digest if isinstance(change, TokenChange) else None
    db.execute(
        "INSERT INTO changes (client_id, digest, at) VALUES (?, ?, ?)", (client_id, digest, now)
    )


def insert_record(db: sqlite3.Connection, record: Record, version: int) -> None:
    """Keep a record in place of its namesake."""
    db.execute(
        f"REPLACE INTO records ({RECORD_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
        (record.kind, record.key, record.owner, record.value, record.expires_at, version),
    )


def find_record(db: sqlite3.Connection, kind: str, key: str, now: float) -> Record | None:
    """The record of this key, unless it has ended at `now`."""
    row = db.execute(
        f"SELECT {RECORD_COLUMNS} FROM records"
        " WHERE kind = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?)",
        (kind, key, now),
    ).fetchone()
    return None if row is None else Record(*row)
