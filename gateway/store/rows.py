"""Rows of the stores in SQL, to and from values.

Both have the same columns: lists of scopes are separated by spaces, mappings are JSON texts.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from gateway.oauth.models import AccessToken, Client, StoreDataError
from gateway.rate_limit import RateLimit

Row = tuple[Any, ...]
Value = TypeVar("Value")

CLIENT_COLUMNS = (
    "client_id, client_name, secret_hash, scopes, created_at, expires_at, generation, metadata, "
    "rate_limit"
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
        raise StoreDataError(f"a column can't be read ({type(error).__name__})") from None


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


def as_token(row: Sequence[Any]) -> AccessToken:
    """The token in a row of `SELECT_TOKENS`."""
    digest, client_id, client_name, scopes, issued_at, expires_at, claims, limit = row
    return AccessToken(
        digest, client_id, client_name, tuple(scopes.split()),
        issued_at, expires_at, from_json(claims), as_limit(limit),
    )  # fmt: skip


def token_position(token: AccessToken | None) -> tuple[float, bytes]:
    """The place of a token in the order of `UsageStore.list_tokens`; before all others for None."""
    return (0.0, b"") if token is None else (token.expires_at, token.digest)


def as_client(row: Sequence[Any]) -> Client:
    """The client in a row of `CLIENT_COLUMNS`."""
    client_id, client_name, secret_hash, scopes, created_at, expires_at, *rest = row
    generation, metadata, limit = rest
    return Client(
        client_id, client_name, secret_hash, tuple(scopes.split()),
        created_at, expires_at, generation, from_json(metadata), as_limit(limit),
    )  # fmt: skip
