"""The values of the OAuth provider and the stores it asks for.

Everything here is plain data: no sockets, no SQL, no YAML. The store protocols live
with their consumer; `gateway.store` implements them.

Vocabulary: RFC 6749 (client, access token, scope), RFC 7591 (registration).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gateway.rate_limit import RateLimit

Clock = Callable[[], float]
"""A source of seconds. Wall clocks count from the Unix epoch, monotonic ones from anywhere."""

TokenFormat = Literal["opaque", "jwt"]
AuthMethod = Literal[
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "workload",
    "none",
]
CredentialSource = Literal["basic", "form", "header", "query"]
RegistrationMode = Literal["token", "public", "open", "off"]
ClientRenewal = Literal["public", "all", "none"]
RefreshStrategy = Literal["none", "reusable", "rotating"]
Credential = Literal["bearer", "api_key", "client_secret"]
"""What a request authenticates by: an access token, an API key, or the client's id and secret."""
FAMILY_CLAIM = "refresh_family"
NEVER = 253_402_300_799.0
"""Unix time of the end of the year 9999: the end of what has none."""


def digest_token(token: str) -> bytes:
    """The only form in which a token is kept: its SHA-256 digest (32 bytes).

    A plain digest is enough, and fast, because a token carries 256 random bits:
    there is nothing to guess that a slow hash would protect.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client (RFC 6749 section 2), as the store keeps it."""

    client_id: str
    client_name: str
    secret_hash: str = field(repr=False)
    """argon2id, in PHC string format."""
    scopes: tuple[str, ...]
    """Scopes this client may ask for; empty where the provider uses no scopes."""
    created_at: float
    """Unix time, seconds."""
    expires_at: float | None
    """Unix time at which the registration (and so its secret) ends; None is never."""
    generation: int
    """Differs after every replacement, rotation and re-creation, so that a token issued from an
    authentication that has since been overtaken is refused by the store."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else was registered (RFC 7591 section 2), as JSON values: `redirect_uris`, `jwks`..."""
    rate_limit: RateLimit | None = None
    """What the operator grants this client in place of the limit that all clients have."""

    def is_expired(self, now: float) -> bool:
        """Whether the registration has ended at `now` (Unix time)."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An issued access token without its value: that exists only in the one reply."""

    digest: bytes = field(repr=False)
    client_id: str
    client_name: str
    """Joined in from the client on every read, never stored with the token."""
    scopes: tuple[str, ...]
    issued_at: float
    """Unix time, seconds."""
    expires_at: float
    """Unix time, seconds."""
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else the token says, by the names of RFC 7519 and RFC 7662, as JSON values: `sub`,
    `aud`, `cnf`..."""
    rate_limit: RateLimit | None = None
    """Joined in from the client, like its name."""
    extra_claims: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    """What another issuer says of it that rules and templates name; decides nothing else, and is
    never stored."""
    credential: Credential = "bearer"
    """What it stands for in the token cache."""
    key_id: str = ""
    """Of an API key; empty for all else."""
    key_limit: RateLimit | None = None
    """The rate limit of an API key alone, beside that of its client."""

    @property
    def family(self) -> str | None:
        """The key of the family of refresh tokens that it belongs to, if any."""
        family: str | None = self.claims.get(FAMILY_CLAIM)
        return family

    @property
    def scope(self) -> str:
        """The scopes as RFC 6749 section 3.3 writes them: separated by spaces."""
        return " ".join(self.scopes)


@dataclass(frozen=True, slots=True)
class Record:
    """A small value of the provider that ends: an authorization code, a session, a key."""

    kind: str
    key: str
    """Unique within its kind. Where the key is a secret, the digest of it."""
    owner: str
    """Whose it is, as `client_owner` or `user_owner` writes it; it goes with its client."""
    value: bytes = field(repr=False)
    expires_at: float | None
    """Unix time from which it is as good as gone; None is never."""
    version: int = 1
    """Raised by the store whenever the value is replaced."""


def client_owner(client_id: str) -> str:
    """The owner of records that end with the client."""
    return f"client:{client_id}"


def user_owner(username: str) -> str:
    """The owner of records that belong to a user."""
    return f"user:{username}"


@dataclass(frozen=True, slots=True)
class TokenChange:
    """One token stopped being valid before its time."""

    digest: bytes = field(repr=False)
    age_s: float = field(default=0.0, compare=False)
    """How long ago, by the store's clock, when the change was read."""


@dataclass(frozen=True, slots=True)
class ClientChange:
    """All tokens of one client stopped being valid: it was deleted, replaced or cut off. Or
    what they say about it, its rate limit, is out of date."""

    client_id: str
    age_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class ClientUsage:
    """How much a client uses the gateway, or how much more than was known."""

    client_id: str
    last_used: float | None = None
    """When a token of it was last seen in use, Unix time, to within `cache.ttl`; None is never."""
    tokens_issued: int = 0


Change = TokenChange | ClientChange


@dataclass(frozen=True, slots=True)
class Purged:
    """Counts of what one purge removed."""

    tokens: int
    clients: int
    records: int = 0


@dataclass(frozen=True, slots=True)
class ClientCensus:
    """How many clients there are, and how many end soon."""

    total: int
    expired: int
    expiring: int


class StoreError(Exception):
    """A store returned something other than the requested data."""


class StoreUnavailableError(StoreError):
    """The store did not respond. Says nothing about any client or token.

    Callers respond 503 with Retry-After: never "invalid token", never "allow".
    """

    code = "store_unavailable"
    """The `reason` of that response."""
    who = "The token store"
    """What does not respond, for the client to read."""

    def __init__(self, reason: str, *, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class StoreRejectedError(StoreUnavailableError):
    """The store responded, and rejected the operation: full, read-only, locked, not permitted."""


class UnstorableValueError(StoreRejectedError):
    """The store can't hold this value, such as a text with a NUL. Says nothing about the store."""


class StoreDataError(StoreUnavailableError):
    """The store's data cannot be read: damaged, or written by something else."""


class ClientExistsError(StoreError):
    """A client with this id is already registered."""


class ClientGoneError(StoreError):
    """The client was deleted, replaced or rotated while it was being used."""


class ClientStore(Protocol):
    """Stores clients. Every method may raise `StoreUnavailableError`."""

    async def get_client(self, client_id: str) -> Client | None:
        """The client, expired or not, or None where there is none."""

    async def add_client(self, client: Client) -> None:
        """Keep a new client. Raises `ClientExistsError`, also for an expired namesake."""

    async def replace_client(self, client: Client) -> int:
        """Keep a client in place of its namesake, if any, revoking the namesake's tokens and
        deleting its records in the same step. The generation kept is one above the namesake's.
        Returns the number of live tokens revoked."""

    async def delete_client(self, client_id: str) -> int | None:
        """Delete a client, its tokens and its records in the same step. Returns the number of
        live tokens revoked, or None where there was no such client."""

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        """Up to `limit` clients whose id sorts (by code point) after `after`, in that order."""

    async def update_client(self, client: Client, *, generation: int) -> Client | None:
        """Replace name, scopes, metadata and expiry, and raise the generation; tokens already
        issued stay valid, and every process is notified in the same step. Returns the client as it
        is now, or None where there is no such client of exactly this generation."""

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        """Move the end of a registration. Returns the client as it is now, or None."""

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        """Replace the secret and raise the generation; tokens already issued stay valid, and every
        process is notified in the same step. Returns the client as it is now, or None."""

    async def set_client_rate_limit(
        self, client_id: str, rate_limit: RateLimit | None
    ) -> Client | None:
        """Give a client a rate limit of its own, or take it away; every process is notified.
        Returns the client as it is now, or None."""

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        """Count all clients, those expired at `now`, and those that end in
        [`now`, `expiring_before`)."""

    async def expiring_clients(
        self, *, now: float, before: float, limit: int = 20
    ) -> Sequence[Client]:
        """Clients that end in [`now`, `before`), soonest first."""


class TokenReader(Protocol):
    """Looks up access tokens."""

    async def get_token(self, digest: bytes) -> AccessToken | None:
        """The token, expired or not, or None where there is none. Raises
        `StoreUnavailableError`."""


class ApiKeyReader(Protocol):
    """Looks up API keys."""

    async def get_api_key(self, digest: bytes) -> AccessToken | None:
        """The key as a token, expired or not, or None where there is none. Raises
        `StoreUnavailableError`."""


class TokenStore(TokenReader, Protocol):
    """Stores access tokens. Every method may raise `StoreUnavailableError`."""

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        """Keep a token of a client of exactly this generation. Raises `ClientGoneError`."""

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        """Remove a token. Returns what was removed, or None."""

    async def revoke_client_tokens(self, client_id: str) -> int:
        """Remove every token of a client, which stays. Returns how many were live."""


class RecordStore(Protocol):
    """Stores records. One that has expired is never returned, and its key is free.
    Every method may raise `StoreUnavailableError`."""

    async def now(self) -> float:
        """The time of the store, Unix seconds: one clock for all processes on it."""

    async def add_record(self, record: Record) -> bool:
        """Keep a new record. False, and nothing kept, where the key is taken."""

    async def get_record(self, kind: str, key: str) -> Record | None:
        """The record, or None."""

    async def take_record(self, kind: str, key: str) -> Record | None:
        """Remove and return the record: of many callers, exactly one gets it."""

    async def put_record(self, record: Record) -> Record:
        """Keep a record in place of its namesake, if any. Returns it as kept: its version is one
        above the namesake's."""

    async def swap_record(self, old: Record, new: Record, *, change: Change | None = None) -> bool:
        """Keep `new` in place of `old`, with the version after it, if `old` is still what is
        kept. Both have the same kind and key. Where that makes a `change`, every process is
        notified of it in the same step."""

    async def delete_record(self, kind: str, key: str, *, change: Change | None = None) -> bool:
        """Remove a record. Whether there was one; then every process is notified in the same step
        of the `change` that this makes, if any."""

    async def delete_owned_records(self, kind: str, owner: str) -> int:
        """Remove all records of a kind that belong to `owner`. Returns how many were live."""

    async def list_records(
        self, kind: str, *, after: str = "", limit: int = 100, owner: str | None = None
    ) -> Sequence[Record]:
        """Up to `limit` records of a kind (and an owner) whose key sorts (by code point) after
        `after`, in that order."""


class UsageStore(Protocol):
    """Queries of operators. Every method may raise `StoreUnavailableError`."""

    async def search_clients(
        self, text: str, *, after: str = "", limit: int = 100
    ) -> Sequence[Client]:
        """Like `list_clients`, but only clients whose id or name holds `text`; ASCII letters
        match whatever their case."""

    async def record_usage(self, usages: Sequence[ClientUsage]) -> None:
        """Add to what is known of the use of clients; of those that are gone, nothing is kept."""

    async def client_usage(self, client_ids: Sequence[str]) -> Mapping[str, ClientUsage]:
        """Return the usage of these clients, by id; those never used may be missing."""

    async def count_tokens(self, client_id: str) -> int:
        """How many tokens of a client are live."""

    async def list_tokens(
        self, client_id: str, *, after: AccessToken | None = None, limit: int = 100
    ) -> Sequence[AccessToken]:
        """Return the live tokens of a client, the next one to expire first, of one time by digest,
        from the one behind `after`."""


class Store(Protocol):
    """All stores behind one URL, with what the process needs to keep them healthy."""

    @property
    def clients(self) -> ClientStore: ...

    @property
    def tokens(self) -> TokenStore: ...

    @property
    def records(self) -> RecordStore: ...

    @property
    def usage(self) -> UsageStore: ...

    async def purge(self, *, tokens_before: float, clients_before: float) -> Purged:
        """Remove tokens and records that ended before `tokens_before`, clients that ended before
        `clients_before` (Unix time), and change records that no process can still need."""

    async def changes_since(self, cursor: int | None) -> tuple[int, Sequence[Change] | None]:
        """Return what stopped being valid after `cursor`, by any process, and the cursor to ask
        with next. `None` as the cursor only asks for the newest one. `None` instead of changes says
        that some were missed: everything cached must be asked for again."""

    async def watch_changes(
        self, *, on_change: Callable[[], None], on_gap: Callable[[], None]
    ) -> None:
        """Until cancelled, call `on_change` when there are changes to read, and `on_gap` when
        the connection that such news come by was lost and is back: everything cached must then
        be asked for again. Returns at once where the store cannot notify."""

    async def ping(self) -> None:
        """Check that the store responds. Raises `StoreUnavailableError`."""

    @property
    def rejects_writes(self) -> bool:
        """Whether the last write was rejected by a store that responds."""

    async def find_hazards(self) -> Sequence[str]:
        """Describe settings of the store that endanger its data, for the operator. Raises
        `StoreUnavailableError`."""

    async def close(self) -> None:
        """Finish what was accepted and let go of every file, thread and connection."""
