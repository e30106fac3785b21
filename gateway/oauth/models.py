"""The values of the OAuth provider and the stores it asks for.

Everything here is plain data: no sockets, no SQL, no YAML. The two store
protocols live with their consumer; `gateway.store` implements them.

Vocabulary: RFC 6749 (client, access token, scope), RFC 7591 (registration).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Clock = Callable[[], float]
"""A source of seconds. Wall clocks count from the Unix epoch, monotonic ones from anywhere."""

GrantType = Literal["client_credentials"]
CredentialSource = Literal["basic", "form", "header", "query"]
RegistrationMode = Literal["token", "open", "off"]


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

    @property
    def scope(self) -> str:
        """The scopes as RFC 6749 section 3.3 writes them: separated by spaces."""
        return " ".join(self.scopes)


@dataclass(frozen=True, slots=True)
class TokenChange:
    """One token stopped being valid before its time."""

    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientChange:
    """All tokens of one client stopped being valid: it was deleted, replaced or cut off."""

    client_id: str


Change = TokenChange | ClientChange


@dataclass(frozen=True, slots=True)
class Purged:
    """What one purge removed."""

    tokens: int
    clients: int


@dataclass(frozen=True, slots=True)
class ClientCensus:
    """How many clients there are, and how many end soon."""

    total: int
    expired: int
    expiring: int


class StoreError(Exception):
    """A store answered something other than the data asked for."""


class StoreUnavailableError(StoreError):
    """The store did not answer. Says nothing about any client or token.

    Callers answer 503 with Retry-After: never "invalid token", never "allow".
    """

    def __init__(self, reason: str, *, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class ClientExistsError(StoreError):
    """A client with this id is already registered."""


class ClientGoneError(StoreError):
    """The client was deleted, replaced or rotated while it was being used."""


class ClientStore(Protocol):
    """Where clients persist. Every method may raise `StoreUnavailableError`."""

    async def get_client(self, client_id: str) -> Client | None:
        """The client, expired or not, or None where there is none."""

    async def add_client(self, client: Client) -> None:
        """Keep a new client. Raises `ClientExistsError`, also for an expired namesake."""

    async def replace_client(self, client: Client) -> int:
        """Keep a client in place of its namesake, if any, revoking the namesake's tokens in the
        same step. The generation kept is one above the namesake's. Returns the number of live
        tokens revoked."""

    async def delete_client(self, client_id: str) -> int | None:
        """Delete a client and revoke its tokens in the same step. Returns the number of live
        tokens revoked, or None where there was no such client."""

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        """Up to `limit` clients whose id sorts (by code point) after `after`, in that order."""

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        """Move the end of a registration. Returns the client as it is now, or None."""

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        """Replace the secret and raise the generation; tokens already issued stay valid.
        Returns the client as it is now, or None."""

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        """Count all clients, those expired at `now`, and those that end in
        [`now`, `expiring_before`)."""

    async def expiring_clients(
        self, *, now: float, before: float, limit: int = 20
    ) -> Sequence[Client]:
        """Clients that end in [`now`, `before`), soonest first."""


class TokenStore(Protocol):
    """Where access tokens persist. Every method may raise `StoreUnavailableError`."""

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        """Keep a token of a client of exactly this generation. Raises `ClientGoneError`."""

    async def get_token(self, digest: bytes) -> AccessToken | None:
        """The token, expired or not, or None where there is none."""

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        """Remove a token. Returns what was removed, or None."""

    async def revoke_client_tokens(self, client_id: str) -> int:
        """Remove every token of a client, which stays. Returns how many were live."""


class Store(ClientStore, TokenStore, Protocol):
    """Both stores behind one URL, with what the process needs to keep them healthy."""

    async def purge(self, *, tokens_before: float, clients_before: float) -> Purged:
        """Remove tokens that ended before `tokens_before`, clients that ended before
        `clients_before` (Unix time), and change records nobody can still want."""

    async def changes_since(self, cursor: int | None) -> tuple[int, Sequence[Change] | None]:
        """What stopped being valid after `cursor`, by any process, and the cursor to ask with
        next. `None` as the cursor only asks for the newest one. `None` instead of changes says
        that some were missed: everything cached must be asked for again."""

    async def ping(self) -> None:
        """Prove that the store answers. Raises `StoreUnavailableError`."""

    async def close(self) -> None:
        """Finish what was accepted and let go of every file, thread and connection."""
