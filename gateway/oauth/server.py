"""The authorization server: what happens to clients and tokens, without HTTP.

RFC 6749 section 4.4 (client credentials grant), RFC 7591 (registration). Every way in,
be it an endpoint, the admin API or the command line, ends here, so the rules hold on
all of them.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from gateway.metrics import Metrics
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.errors import (
    ClientAlreadyExistsError,
    InvalidClientError,
    InvalidClientMetadataError,
    InvalidScopeError,
    TooManyFailuresError,
)
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import (
    AccessToken,
    Client,
    ClientExistsError,
    ClientGoneError,
    Clock,
    CredentialSource,
    RegistrationMode,
    Store,
    digest_token,
)
from gateway.rate_limit import RateLimit

# No space, because the id travels in headers and logs; no colon, because clients that
# don't percent-encode could not use such an id in HTTP Basic (RFC 6749 section 2.3.1).
_CLIENT_ID = re.compile(r"[!-9;-~]{1,255}")
_CLIENT_SECRET = re.compile(r"[ -~]{1,256}")
MAX_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class ProviderPolicy:
    """The rules of this provider."""

    issuer: str
    token_ttl_s: float = 3600.0
    client_ttl_s: float | None = None
    """How long a registration lasts unless renewed; None is for ever."""
    grant_types: tuple[str, ...] = ("client_credentials",)
    scopes: tuple[str, ...] = ()
    """All scopes there are; empty where scopes are unused."""
    default_scopes: tuple[str, ...] = ()
    credentials_in: frozenset[CredentialSource] = frozenset({"basic", "form", "header"})
    registration_mode: RegistrationMode = "token"
    registration_token: str | None = field(default=None, repr=False)
    fail_if_present: bool = True
    token_path: str = "/token"  # noqa: S105
    create_client_path: str = "/createClient"
    validate_path: str = "/validate"


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client and its secret, which exists only here and in the one reply."""

    client: Client
    client_secret: str = field(repr=False)
    is_replacement: bool = False


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and its value, which exists only here and in the one reply."""

    access_token: str = field(repr=False)
    token: AccessToken
    expires_in: int
    """Seconds, rounded down, as RFC 6749 section 5.1 tells them."""


class AuthorizationServer:
    """Registers clients, and issues, inspects and revokes tokens."""

    def __init__(
        self,
        store: Store,
        policy: ProviderPolicy,
        hasher: SecretHasher,
        limiter: FailedClientLimiter,
        metrics: Metrics,
        *,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self._store = store
        self._policy = policy
        self._hasher = hasher
        self._limiter = limiter
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._random_text = random_text
        self._verifying: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    # Clients.

    async def register_client(
        self,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        client_name: str | None = None,
        scopes: Sequence[str] | None = None,
        replace_existing: bool = False,
    ) -> RegisteredClient:
        """Register a client; id and secret are made up where they are not given.

        Raises `InvalidClientMetadataError`, `ClientAlreadyExistsError`,
        `TemporarilyUnavailableError` and `StoreUnavailableError`.
        """
        client_id = client_id or self._random_text(16)
        client_secret = client_secret or self._random_text(32)
        client_name = client_name or client_id
        granted = tuple(scopes) if scopes is not None else self._policy.scopes
        self._check_metadata(client_id, client_secret, client_name, granted)
        now = self._wall_clock()
        client = Client(
            client_id=client_id,
            client_name=client_name,
            secret_hash=await self._hasher.hash(client_secret),
            scopes=granted,
            created_at=now,
            expires_at=self._registration_end(now),
            # From the clock, so that a client deleted and made anew never has the
            # generation of its namesake.
            generation=int(now * 1_000_000),
        )
        if not replace_existing:
            try:
                await self._store.add_client(client)
            except ClientExistsError:
                raise ClientAlreadyExistsError from None
            return RegisteredClient(client, client_secret)
        is_replacement = await self._store.get_client(client_id) is not None
        await self._store.replace_client(client)
        return RegisteredClient(client, client_secret, is_replacement)

    def _check_metadata(
        self, client_id: str, client_secret: str, client_name: str, scopes: Sequence[str]
    ) -> None:
        if not _CLIENT_ID.fullmatch(client_id):
            raise InvalidClientMetadataError(
                "client_id must be 1 to 255 visible ASCII characters without a colon."
            )
        if not _CLIENT_SECRET.fullmatch(client_secret):
            raise InvalidClientMetadataError(
                "client_secret must be 1 to 256 printable ASCII characters."
            )
        if len(client_name) > MAX_NAME_LENGTH or not client_name.isprintable():
            raise InvalidClientMetadataError(
                f"client_name must be at most {MAX_NAME_LENGTH} printable characters."
            )
        if not set(scopes) <= set(self._policy.scopes):
            raise InvalidClientMetadataError("scope names a scope that this provider lacks.")

    def _registration_end(self, now: float) -> float | None:
        return now + self._policy.client_ttl_s if self._policy.client_ttl_s else None

    async def get_client(self, client_id: str) -> Client | None:
        """The client, or None. Raises `StoreUnavailableError`."""
        return await self._store.get_client(client_id)

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        """Up to `limit` clients whose id sorts after `after`. Raises `StoreUnavailableError`."""
        return await self._store.list_clients(after=after, limit=limit)

    async def renew_client(self, client_id: str) -> Client | None:
        """Let a registration begin anew, also one that has ended; None where there is none.

        Raises `StoreUnavailableError`.
        """
        end = self._registration_end(self._wall_clock())
        return await self._store.set_client_expiry(client_id, end)

    async def limit_client(self, client_id: str, rate_limit: RateLimit | None) -> Client | None:
        """Give a client a rate limit of its own, or (None) the one of all clients again; None
        where there is no such client. Raises `StoreUnavailableError`."""
        return await self._store.set_client_rate_limit(client_id, rate_limit)

    async def rotate_secret(
        self, client_id: str, *, client_secret: str | None = None, revoke_tokens: bool = False
    ) -> RegisteredClient | None:
        """Give a client a new secret; the old one stops at once. Tokens stay valid unless
        `revoke_tokens`. None where there is no such client.

        Raises `InvalidClientMetadataError`, `TemporarilyUnavailableError` and
        `StoreUnavailableError`.
        """
        client_secret = client_secret or self._random_text(32)
        if not _CLIENT_SECRET.fullmatch(client_secret):
            raise InvalidClientMetadataError(
                "client_secret must be 1 to 256 printable ASCII characters."
            )
        secret_hash = await self._hasher.hash(client_secret)
        client = await self._store.set_client_secret(client_id, secret_hash)
        if client is None:
            return None
        if revoke_tokens:
            await self._store.revoke_client_tokens(client_id)
        return RegisteredClient(client, client_secret)

    async def delete_client(self, client_id: str) -> int | None:
        """Delete a client and revoke its tokens: returns how many were live, None where there
        was no such client. Raises `StoreUnavailableError`."""
        return await self._store.delete_client(client_id)

    # Tokens.

    async def issue_token(
        self, client_id: str, client_secret: str, scope: str | None, source: str
    ) -> IssuedToken:
        """The client credentials grant (RFC 6749 section 4.4) for a client at address `source`.

        Raises `TooManyFailuresError` before any hash is computed, `InvalidClientError`,
        `InvalidScopeError`, `TemporarilyUnavailableError` and `StoreUnavailableError`.
        """
        client = await self._authenticate(client_id, client_secret, source)
        return await self._issue(client, scope, self._policy.token_ttl_s)

    async def issue_token_to(
        self, client_id: str, *, scope: str | None = None, ttl_s: float | None = None
    ) -> IssuedToken:
        """A token for a client on an operator's word, without its secret.

        Raises `InvalidClientError` for a client that does not exist or has ended,
        `InvalidScopeError` and `StoreUnavailableError`.
        """
        client = await self._store.get_client(client_id)
        if client is None or client.is_expired(self._wall_clock()):
            raise InvalidClientError("There is no such client, or its registration has ended.")
        return await self._issue(client, scope, ttl_s or self._policy.token_ttl_s)

    async def inspect_token(self, access_token: str) -> AccessToken | None:
        """The token, or None where it is unknown or has expired.

        Raises `StoreUnavailableError`.
        """
        token = await self._store.get_token(digest_token(access_token))
        if token is None or token.expires_at <= self._wall_clock():
            return None
        return token

    async def revoke_token(self, access_token: str) -> AccessToken | None:
        """Revoke a token; None where there was none. Raises `StoreUnavailableError`."""
        return await self._store.revoke_token(digest_token(access_token))

    async def _authenticate(self, client_id: str, client_secret: str, source: str) -> Client:
        # One at a time for each pair, or a burst of guesses would all be on their way
        # before the first failure counts.
        pair = (client_id, source)
        async with self._verifying.setdefault(pair, asyncio.Lock()):
            return await self._verify(client_id, client_secret, source)

    async def _verify(self, client_id: str, client_secret: str, source: str) -> Client:
        retry_after_s = self._limiter.retry_after_s(client_id, source)
        if retry_after_s is not None:
            self._metrics.failed_client_limited.inc()
            raise TooManyFailuresError(retry_after_s)
        client = await self._store.get_client(client_id)
        is_right = await self._hasher.verify(client_secret, client.secret_hash if client else None)
        if client is None or not is_right or client.is_expired(self._wall_clock()):
            self._limiter.fail(client_id, source)
            raise InvalidClientError
        self._limiter.succeed(client_id, source)
        return client

    async def _issue(self, client: Client, scope: str | None, ttl_s: float) -> IssuedToken:
        scopes = self._grant_scopes(client, scope)
        now = self._wall_clock()
        # A token must not outlive the registration that it was issued for.
        expires_at = min(now + ttl_s, client.expires_at or now + ttl_s)
        access_token = self._random_text(32)
        token = AccessToken(
            digest=digest_token(access_token),
            client_id=client.client_id,
            client_name=client.client_name,
            scopes=scopes,
            issued_at=now,
            expires_at=expires_at,
        )
        try:
            await self._store.add_token(token, generation=client.generation)
        except ClientGoneError:
            raise InvalidClientError from None
        self._metrics.tokens_issued.labels("client_credentials").inc()
        return IssuedToken(access_token, token, int(expires_at - now))

    def _grant_scopes(self, client: Client, scope: str | None) -> tuple[str, ...]:
        """RFC 6749 section 3.3: what was asked for, or the default, or an error."""
        asked = tuple(dict.fromkeys((scope or "").split()))
        if not self._policy.scopes:
            if asked:
                raise InvalidScopeError("This provider does not use scopes.")
            return ()
        if not asked:
            asked = tuple(name for name in self._policy.default_scopes if name in client.scopes)
            if not asked:
                raise InvalidScopeError("Ask for a scope: there is no default for this client.")
        if not set(asked) <= set(client.scopes):
            raise InvalidScopeError
        return asked
