"""Rows of the SQLite store, to and from values."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from typing import Any

from gateway.oauth.models import AccessToken, Client

Row = tuple[Any, ...]

CLIENT_COLUMNS = "client_id, client_name, secret_hash, scopes, created_at, expires_at, generation"
SELECT_CLIENTS = f"SELECT {CLIENT_COLUMNS} FROM clients"
_SELECT_TOKENS = (
    "SELECT digest, t.client_id, client_name, t.scopes, issued_at, t.expires_at"
    " FROM tokens t JOIN clients USING (client_id)"
)


def insert_client(db: sqlite3.Connection, client: Client, generation: int) -> None:
    """Raises `sqlite3.IntegrityError` where the id is taken."""
    db.execute(
        f"INSERT INTO clients ({CLIENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            client.client_id, client.client_name, client.secret_hash, " ".join(client.scopes),
            client.created_at, client.expires_at, generation,
        ),
    )  # fmt: skip


def find_client(db: sqlite3.Connection, client_id: str) -> Client | None:
    """The client of this id."""
    query = f"{SELECT_CLIENTS} WHERE client_id = ?"
    row = db.execute(query, (client_id,)).fetchone()
    return None if row is None else as_client(row)


def find_token(db: sqlite3.Connection, digest: bytes) -> AccessToken | None:
    """The token of this digest, with the name that its client has now."""
    row = db.execute(f"{_SELECT_TOKENS} WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        return None
    digest, client_id, client_name, scopes, issued_at, expires_at = row
    return AccessToken(digest, client_id, client_name, tuple(scopes.split()), issued_at, expires_at)


def as_client(row: Row) -> Client:
    """The client in a row of `CLIENT_COLUMNS`."""
    client_id, client_name, secret_hash, scopes, created_at, expires_at, generation = row
    return Client(
        client_id, client_name, secret_hash, tuple(scopes.split()),
        created_at, expires_at, generation,
    )  # fmt: skip
