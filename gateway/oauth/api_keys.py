"""API keys: long-lived credentials of clients, created by operators and shown once.

A key is a record of its client (`RecordStore`), by its digest, so that it goes with the client, and
is kept, purged, backed up and migrated as every record. For the token cache, it is an access token
that never changes (`ApiKeys.get_api_key`); how routes opt in is in `gateway.proxy.credentials`.

Format: `bgk_`, 43 random characters, and 6 of their checksum (CRC-32), all in base 62, as GitHub's
tokens have it. Secret scanners know a key by its prefix, and a mistyped one by its checksum.
"""

from __future__ import annotations

import re
import secrets
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.errors import InvalidClientMetadataError, InvalidScopeError
from gateway.oauth.models import (
    NEVER,
    AccessToken,
    Client,
    ClientChange,
    Clock,
    Record,
    Store,
    StoreDataError,
    client_owner,
    digest_token,
)
from gateway.rate_limit import RateLimit

PREFIX = "bgk_"
PATTERN = r"bgk_[0-9A-Za-z]{49}"
"""What secret scanners look for."""
RANDOM_CHARS = 43
"""256 random bits."""
CHECKSUM_CHARS = 6
MAX_KEYS = 100
"""Keys that a client may have at once."""
MAX_NAME_CHARS = 100
KIND = "api_key"
RETENTION_S = 30 * 86400.0
"""How long an expired key is still listed."""
LAST_USE_S = 300.0
"""A key's last use is written at most this often."""
MAX_USES = 10_000
"""Keys whose use is noted between two flushes; what comes beyond is not noted."""
FLUSH_BATCH = 100
"""Uses that one flush writes at most."""
SWAP_ATTEMPTS = 5

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(PATTERN)


def is_api_key(text: str) -> bool:
    """Whether a text has the format of a key; its checksum may be wrong."""
    return text.startswith(PREFIX) and _KEY.fullmatch(text) is not None


def has_checksum(key: str) -> bool:
    """Whether the checksum of a text in the format of a key is right."""
    body = key[len(PREFIX) :]
    return _checksum(body[:RANDOM_CHARS]) == body[RANDOM_CHARS:]


def make_api_key(choice: Callable[[str], str] = secrets.choice) -> str:
    """Make a key."""
    body = "".join(choice(_BASE62) for _ in range(RANDOM_CHARS))
    return f"{PREFIX}{body}{_checksum(body)}"


def _checksum(body: str) -> str:
    rest, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(CHECKSUM_CHARS):
        rest, digit = divmod(rest, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its value, which exists only in the one reply."""

    key_id: str
    client_id: str
    name: str
    scopes: tuple[str, ...] | None
    """Those of its client that it has; None for all of them."""
    created_at: float
    """Unix time, seconds."""
    expires_at: float | None
    """Unix time, seconds; None is never."""
    client_created_at: float
    """When its client was registered: a later client of the same id does not inherit it."""
    rate_limit: RateLimit | None = None
    last_used: float | None = None
    """Unix time, seconds, to within `LAST_USE_S` and `cache.ttl`; None is never."""
    is_rotated: bool = False
    """Whether another key has taken its place, and it only works on for a while."""

    def is_expired(self, now: float) -> bool:
        """Whether it has expired at `now` (Unix time)."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key and its value."""

    key: ApiKey
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySettings:
    """Settings of a new key."""

    name: str
    scopes: tuple[str, ...] | None = None
    ttl_s: float | None = None
    """None for the provider's default."""
    rate_limit: RateLimit | None = None


class ApiKeys:
    """Creates, lists, rotates and revokes keys, and looks them up for the token cache. Every method
    may raise `StoreUnavailableError`."""

    def __init__(
        self,
        store: Store,
        *,
        default_ttl_s: float | None = None,
        wall_clock: Clock = time.time,
        choice: Callable[[str], str] = secrets.choice,
        random_id: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._store = store
        self._default_ttl_s = default_ttl_s
        self._wall_clock = wall_clock
        self._choice = choice
        self._random_id = random_id
        self._uses: dict[str, float] = {}

    def reconfigure(self, *, default_ttl_s: float | None) -> None:
        """Give new keys another lifetime by default."""
        self._default_ttl_s = default_ttl_s

    async def create(self, client_id: str, settings: KeySettings) -> NewApiKey | None:
        """Create a key; None where there is no such client.

        Raises `InvalidClientMetadataError` for a bad name, or where the client has `MAX_KEYS`, and
        `InvalidScopeError` for scopes that the client does not have.
        """
        client = await self._store.clients.get_client(client_id)
        if client is None:
            return None
        if not settings.name or len(settings.name) > MAX_NAME_CHARS:
            raise InvalidClientMetadataError(
                f"The name of a key must have 1 to {MAX_NAME_CHARS} characters, not "
                f"{len(settings.name)}.",
                member="name",
            )
        if not settings.name.isprintable():
            raise InvalidClientMetadataError(
                f"The name of a key must be printable, unlike {settings.name!r}.", member="name"
            )
        if settings.scopes is not None and not set(settings.scopes) <= set(client.scopes):
            known = ", ".join(client.scopes) or "none"
            wrong = next(name for name in settings.scopes if name not in client.scopes)
            raise InvalidScopeError(
                f"The client does not have the scope {wrong[:100]!r} (it has: {known}).",
                member="scope",
            )
        now = self._wall_clock()
        ttl_s = self._default_ttl_s if settings.ttl_s is None else settings.ttl_s
        return await self._add(
            client,
            ApiKey(
                key_id=self._random_id(6),
                client_id=client_id,
                name=settings.name,
                scopes=settings.scopes,
                created_at=now,
                expires_at=now + ttl_s if ttl_s else None,
                client_created_at=client.created_at,
                rate_limit=settings.rate_limit,
            ),
        )

    async def _add(self, client: Client, key: ApiKey) -> NewApiKey | None:
        if len(await self.list(client.client_id)) >= MAX_KEYS:
            raise InvalidClientMetadataError(
                f"A client has at most {MAX_KEYS} keys: revoke one first."
            )
        value = make_api_key(self._choice)
        record = _as_record(digest_token(value).hex(), key)
        await self._store.records.add_record(record)
        if await self._store.clients.get_client(client.client_id) is None:
            # Deleted meanwhile, perhaps before the record was there to be deleted with it.
            await self._store.records.delete_record(KIND, record.key)
            return None
        return NewApiKey(key, value)

    async def list(self, client_id: str) -> Sequence[ApiKey]:
        """List the keys of a client, the oldest first, with those that expired lately."""
        keys = [_as_key(record) for record in await self._records(client_id)]
        return sorted(keys, key=lambda key: (key.created_at, key.key_id))

    async def find(self, value: str) -> ApiKey | None:
        """Find the key of this value; expired or not."""
        if not is_api_key(value) or not has_checksum(value):
            return None
        record = await self._store.records.get_record(KIND, digest_token(value).hex())
        return None if record is None else _as_key(record)

    async def revoke(self, client_id: str, key_id: str) -> ApiKey | None:
        """Revoke a key, which is announced to every process in the same step; None where the client
        has no such key."""
        found = await self._find(client_id, key_id)
        if found is None:
            return None
        change = ClientChange(client_id)
        await self._store.records.delete_record(KIND, found.key, change=change)
        return _as_key(found)

    async def rotate(
        self, client_id: str, key_id: str, *, overlap_s: float = 0.0
    ) -> NewApiKey | None:
        """Create a key like another one, which works for another `overlap_s`, and is revoked
        immediately without. None where there is no such key, or no such client, or the key was
        revoked or rotated meanwhile: then none is created. Raises `InvalidClientMetadataError`
        where another key has taken its place before."""
        client, record = (
            await self._store.clients.get_client(client_id),
            await self._find(client_id, key_id),
        )
        if client is None or record is None:
            return None
        old, now = _as_key(record), self._wall_clock()
        if old.is_rotated:
            raise InvalidClientMetadataError(f"the key {key_id} was rotated already")
        life_s = None if old.expires_at is None else old.expires_at - old.created_at
        new = await self._add(
            client,
            replace(
                old,
                key_id=self._random_id(6),
                created_at=now,
                expires_at=None if life_s is None else now + life_s,
                client_created_at=client.created_at,
                last_used=None,
            ),
        )
        if new is None:
            return None
        if await self._retire(record.key, client_id, now, overlap_s):
            return new
        # Its value was given to no caller.
        await self._store.records.delete_record(KIND, digest_token(new.value).hex())
        return None

    async def _retire(self, key: str, client_id: str, now: float, overlap_s: float) -> bool:
        """End a key that is rotated, now or after `overlap_s`. Whether it was still there, and not
        rotated yet."""
        change = ClientChange(client_id)
        is_first = await self._change(key, partial(_rotated, until=now + overlap_s), change)
        if is_first and not overlap_s:
            await self._store.records.delete_record(KIND, key, change=change)
        return is_first

    async def get_api_key(self, digest: bytes) -> AccessToken | None:
        """Return the key of a digest as the token cache keeps it, expired or not, and note its use;
        None where there is none, or its client is gone."""
        key = digest.hex()
        record = await self._store.records.get_record(KIND, key)
        if record is None:
            return None
        found = _as_key(record)
        client = await self._store.clients.get_client(found.client_id)
        if client is None or client.created_at != found.client_created_at:
            return None
        if metadata_of(client).disabled_at is not None:  # its configuration has removed it
            return None
        token = _as_token(digest, found, client)
        now = self._wall_clock()
        if now < token.expires_at and (found.last_used or 0.0) <= now - LAST_USE_S:
            self._note(key, now)
        return token

    def _note(self, key: str, used_at: float) -> None:
        if len(self._uses) < MAX_USES or key in self._uses:
            self._uses[key] = max(used_at, self._uses.get(key, 0.0))

    async def flush(self) -> None:
        """Write when keys were last used, of some of them. What was not written is kept."""
        for key in tuple(self._uses)[:FLUSH_BATCH]:
            used_at = self._uses[key]
            await self._change(key, partial(_used, at=used_at))
            if self._uses.get(key) == used_at:
                del self._uses[key]

    async def _change(
        self, key: str, edit: Callable[[ApiKey], ApiKey | None], change: ClientChange | None = None
    ) -> bool:
        """Edit a key that is still there: never bring back one that was revoked meanwhile. With a
        `change`, every process is notified of it in the same step. Whether it was edited: `edit`
        may return None."""
        for _ in range(SWAP_ATTEMPTS):
            record = await self._store.records.get_record(KIND, key)
            if record is None:
                return False
            edited = edit(_as_key(record))
            if edited is None:
                return False
            new = _as_record(key, edited)
            if await self._store.records.swap_record(record, new, change=change):
                return True
        return False

    async def _find(self, client_id: str, key_id: str) -> Record | None:
        for record in await self._records(client_id):
            if _as_key(record).key_id == key_id:
                return record
        return None

    async def _records(self, client_id: str) -> Sequence[Record]:
        return await self._store.records.list_records(
            KIND, limit=2 * MAX_KEYS, owner=client_owner(client_id)
        )


def _used(key: ApiKey, at: float) -> ApiKey:
    return replace(key, last_used=max(key.last_used or 0.0, at))


def _rotated(key: ApiKey, until: float) -> ApiKey | None:
    if key.is_rotated:
        return None
    return replace(key, expires_at=min(key.expires_at or NEVER, until), is_rotated=True)


def _as_record(key: str, content: ApiKey) -> Record:
    end = content.expires_at
    return Record(
        KIND,
        key,
        client_owner(content.client_id),
        msgspec.json.encode(content),
        None if end is None else end + RETENTION_S,
    )


def _as_key(record: Record) -> ApiKey:
    try:
        return msgspec.json.decode(record.value, type=ApiKey)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreDataError(f"an API key can't be read ({type(error).__name__})") from None


def _as_token(digest: bytes, key: ApiKey, client: Client) -> AccessToken:
    scopes = client.scopes
    if key.scopes is not None:  # the client may have lost some of them
        scopes = tuple(name for name in key.scopes if name in scopes)
    return AccessToken(
        digest=digest,
        client_id=client.client_id,
        client_name=client.client_name,
        scopes=scopes,
        issued_at=key.created_at,
        expires_at=min(key.expires_at or NEVER, client.expires_at or NEVER),
        rate_limit=client.rate_limit,
        credential="api_key",
        key_id=key.key_id,
        key_limit=key.rate_limit,
    )
