"""Clients, tokens and records to keep in a store."""

from __future__ import annotations

from gateway.oauth.models import AccessToken, Client, Record, digest_token


def make_client(client_id: str = "shop", *, ends: float | None = 2_000_000.0) -> Client:
    """A client of generation 7."""
    return Client(client_id, f"{client_id} name", "hash", ("a", "b"), 1.5, ends, 7)


def make_token(
    value: str = "token", client_id: str = "shop", *, ends: float = 1_003_600.0
) -> AccessToken:
    """A token whose value is `value`."""
    return AccessToken(
        digest_token(value), client_id, f"{client_id} name", ("a",), 1_000_000.25, ends
    )


def make_record(
    key: str = "key",
    *,
    kind: str = "code",
    owner: str = "client:shop",
    value: bytes = b"value",
    ends: float | None = 2_000_000.0,
) -> Record:
    """A record of version 1."""
    return Record(kind, key, owner, value, ends)
