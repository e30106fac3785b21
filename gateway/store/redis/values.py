"""Keys and values in Redis, to and from the provider's values.

`{PREFIX}:...` is in one hash slot: clients, records and the log of changes, which scripts
change together. `PREFIX:token:DIGEST` is not, so a Cluster spreads what there is most of.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.oauth.models import (
    AccessToken,
    Change,
    Client,
    ClientChange,
    Record,
    StoreDataError,
)
from gateway.rate_limit import RateLimit

_UNBRACED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "{}%")
TTL_SLACK_S = 60.0
"""Kept beyond its end, so that an expired token is distinguished from an unknown one, and clocks
that differ a little do not matter: the gateway's clock always decides."""

_log = logging.getLogger(__name__)

_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(dict[str, Any]).decode
StoredToken = tuple[str, str, list[str], float, float, dict[str, Any]]
"""Client id, epoch, scopes, issued at, expires at, claims."""
_token_decoder = msgspec.msgpack.Decoder(StoredToken)


class Keys:
    """The names of keys."""

    def __init__(self, prefix: str) -> None:
        self.root = f"{{{prefix}}}:"
        self.channel = f"{self.root}changes"
        self.token_prefix = f"{prefix}:token:"
        self._prefix = prefix

    def client(self, client_id: str) -> str:
        """A hash."""
        return f"{self.root}client:{client_id}"

    def record(self, kind: str, key: str) -> str:
        """A hash."""
        return f"{self.root}record:{kind}:{key}"

    def token(self, digest: bytes) -> str:
        """A string in msgpack."""
        return f"{self.token_prefix}{digest.hex()}"

    def tokens_of(self, client_id: str, epoch: str) -> str:
        """A sorted set of the digests of a client's tokens, by their end; only for counting."""
        return f"{self._prefix}:tokens-of:{{{quote(client_id, safe=_UNBRACED)}}}:{epoch}"


def ttl_ms(expires_at: float, now: float) -> int:
    """How long Redis keeps what ends at `expires_at`."""
    if expires_at <= now:
        return 1
    return int((expires_at - now + TTL_SLACK_S) * 1000)


def new_epoch() -> str:
    """An epoch that no client has had before."""
    return secrets.token_hex(8)


def end_text(expires_at: float | None) -> str:
    """An end as a field; Redis has no null."""
    return "" if expires_at is None else repr(float(expires_at))


def _end(text: bytes) -> float | None:
    return float(text) if text else None


def client_fields(client: Client) -> list[str | bytes]:
    """Return the fields of a client's hash beside its expiry."""
    return [
        "name", client.client_name, "secret", client.secret_hash,
        "scopes", " ".join(client.scopes), "created", repr(client.created_at),
        "generation", str(client.generation), "metadata", _encode(client.metadata),
        "rate_limit", limit_text(client.rate_limit),
    ]  # fmt: skip


def limit_text(limit: RateLimit | None) -> bytes:
    """A rate limit as a field."""
    return b"" if limit is None else msgspec.json.encode(limit)


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Turn what goes wrong with a value from Redis into `StoreDataError`, which names the kind of
    value and never repeats it."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise StoreDataError(f"Redis: {what} can't be read ({type(error).__name__})") from None


def as_limit(text: bytes | None) -> RateLimit | None:
    """The reverse of `limit_text`."""
    with _decoding("a rate limit"):
        return None if not text else msgspec.json.decode(text, type=RateLimit)


def changed_fields(client: Client) -> list[str | bytes]:
    """The fields that an update of a client replaces, beside its end."""
    return [
        "name", client.client_name, "scopes", " ".join(client.scopes),
        "metadata", _encode(client.metadata),
    ]  # fmt: skip


def as_client(client_id: str, fields: Mapping[bytes, bytes] | Sequence[bytes]) -> Client:
    """The client in a hash, which scripts return as a flat list. Raises `StoreDataError`."""
    with _decoding(f"client {client_id!r}"):
        if not isinstance(fields, Mapping):
            fields = dict(zip(fields[::2], fields[1::2], strict=True))
        return Client(
            client_id,
            fields[b"name"].decode(),
            fields[b"secret"].decode(),
            tuple(fields[b"scopes"].decode().split()),
            float(fields[b"created"]),
            _end(fields[b"expires"]),
            int(fields[b"generation"]),
            _decode(fields[b"metadata"]),
            as_limit(fields.get(b"rate_limit")),
        )


def as_clients(found: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[Client]:
    """The clients in hashes, but those that can't be read: one of them must not keep an operator
    from the others. Each is logged."""
    clients = []
    for client_id, fields in found:
        try:
            clients.append(as_client(client_id.decode("utf-8", "replace"), fields))
        except StoreDataError as error:
            _log.warning("left out of a list: %s", error)
    return clients


def token_value(token: AccessToken, epoch: str) -> bytes:
    """Value of a token's key."""
    stored: StoredToken = (
        token.client_id, epoch, list(token.scopes),
        token.issued_at, token.expires_at, dict(token.claims),
    )  # fmt: skip
    return msgspec.msgpack.encode(stored)


def as_stored_token(value: bytes) -> StoredToken:
    """The reverse of `token_value`. Raises `StoreDataError`."""
    with _decoding("a token"):
        stored: StoredToken = _token_decoder.decode(value)
        return stored


def as_token(
    digest: bytes, stored: StoredToken, client_name: str, limit: RateLimit | None
) -> AccessToken:
    """The token, with the name and the limit that its client has now."""
    client_id, _, scopes, issued_at, expires_at, claims = stored
    return AccessToken(
        digest, client_id, client_name, tuple(scopes), issued_at, expires_at, claims, limit
    )


def record_arguments(record: Record, now: float) -> list[str | bytes]:
    """Owner, value, end, version and TTL, as scripts take them."""
    end = record.expires_at
    return [
        record.owner, record.value, end_text(end), str(record.version),
        "" if end is None else str(ttl_ms(end, now)),
    ]  # fmt: skip


def as_record(kind: str, key: str, fields: Sequence[bytes]) -> Record:
    """The record in the fields owner, value, expires and version. Raises `StoreDataError`."""
    with _decoding(f"a record of kind {kind!r}"):
        owner, value, expires, version = fields
        return Record(kind, key, owner.decode(), value, _end(expires), int(version))


def change_arguments(change: Change | None) -> tuple[str | bytes, ...]:
    """Describe a change to a script that announces it."""
    if change is None:
        return ()
    if isinstance(change, ClientChange):
        return "client", change.client_id
    return "token", change.digest
