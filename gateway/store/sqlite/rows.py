"""Rows of the SQLite store, to and from values."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from gateway.oauth.models import AccessToken, Client, Record, StoreDataError
from gateway.rate_limit import RateLimit

Row = tuple[Any, ...]
Value = TypeVar("Value")

CLIENT_COLUMNS = (
    "client_id, client_name, secret_hash, scopes, created_at, expires_at, generation, metadata, "
    "rate_limit"
)
SELECT_CLIENTS = f"SELECT {CLIENT_COLUMNS} FROM clients"
SELECT_TOKENS = (
    "SELECT digest, t.client_id, client_name, t.scopes, issued_at, t.expires_at, claims, rate_limit"
    " FROM tokens t JOIN clients c ON c.client_id = t.client_id AND c.epoch = t.epoch"
)
TOKEN_COLUMNS = "digest, client_id, scopes, issued_at, expires_at, claims, epoch"
RECORD_COLUMNS = "kind, key, owner, value, expires_at, version"
_EMPTY = "{}"


def as_json(values: Mapping[str, Any]) -> str:
    """JSON text for a column."""
    return msgspec.json.encode(values).decode()


def from_json(text: str) -> dict[str, Any]:
    """The object in a column."""
    # Most have nothing to say.
    return {} if text == _EMPTY else _decode(text, dict[str, Any])


def as_limit_text(limit: RateLimit | None) -> str | None:
    """JSON text for a column."""
    return None if limit is None else msgspec.json.encode(limit).decode()


def as_limit(text: str | bytes | None) -> RateLimit | None:
    """The rate limit in a column."""
    return None if not text else _decode(text, RateLimit)


def _decode(text: str | bytes, kind: type[Value]) -> Value:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreDataError(f"SQLite: a column can't be read ({type(error).__name__})") from None


def new_epoch() -> int:
    """Make an epoch that no client has had before."""
    return secrets.randbits(62)


def client_values(client: Client, generation: int) -> Row:
    """The row of `CLIENT_COLUMNS`."""
    return (
        client.client_id, client.client_name, client.secret_hash, " ".join(client.scopes),
        client.created_at, client.expires_at, generation, as_json(client.metadata),
        as_limit_text(client.rate_limit),
    )  # fmt: skip


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


def as_token(row: Row) -> AccessToken:
    """The token in a row of `SELECT_TOKENS`."""
    digest, client_id, client_name, scopes, issued_at, expires_at, claims, limit = row
    return AccessToken(
        digest, client_id, client_name, tuple(scopes.split()),
        issued_at, expires_at, from_json(claims), as_limit(limit),
    )  # fmt: skip


def as_client(row: Row) -> Client:
    """The client in a row of `CLIENT_COLUMNS`."""
    client_id, client_name, secret_hash, scopes, created_at, expires_at, *rest = row
    generation, metadata, limit = rest
    return Client(
        client_id, client_name, secret_hash, tuple(scopes.split()),
        created_at, expires_at, generation, from_json(metadata), as_limit(limit),
    )  # fmt: skip


def begin_epoch(db: sqlite3.Connection, client_id: str, now: float) -> int | None:
    """Revoke all tokens of a client. Returns the epoch that has ended."""
    row = db.execute("SELECT epoch FROM clients WHERE client_id = ?", (client_id,)).fetchone()
    db.execute("UPDATE clients SET epoch = ? WHERE client_id = ?", (new_epoch(), client_id))
    announce_client(db, client_id, now)
    return None if row is None else int(row[0])


def announce_client(db: sqlite3.Connection, client_id: str, now: float) -> None:
    """Have every process evict what it has cached of a client."""
    db.execute("INSERT INTO changes (client_id, at) VALUES (?, ?)", (client_id, now))


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
