"""Verifies the id and secret of a client on each request, by the token cache.

What a pair of id and secret is, is cached as a token is: for `cache.ttl`, and a wrong one for
`cache.negative_ttl`, by a digest with a key of this process, which discloses nothing of a secret
that may be guessable. Only where it is not cached, the secret is hashed: in the hasher's thread,
one at a time for a client and source, so many at once (`MAX_AT_ONCE`), and wrong ones are limited
as those at the token endpoint are.
"""

from __future__ import annotations

import hashlib
import secrets
import time

from gateway.oauth.access import CachedToken
from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.errors import (
    InvalidClientError,
    InvalidTokenError,
    TemporarilyUnavailableError,
)
from gateway.oauth.models import NEVER, AccessToken, Client, Clock, CredentialSource
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.token_cache import TokenCache

MAX_AT_ONCE = 64
"""Secrets that are verified at once; further ones get 503."""
# A client that registered one way of authentication at the token endpoint may use its secret here.
_PLACES: dict[str | None, CredentialSource] = {
    "client_secret_basic": "basic",
    "client_secret_post": "form",
}


class CachedClientSecrets:
    """Looks up clients by id and secret."""

    def __init__(
        self,
        server: AuthorizationServer,
        cache: TokenCache,
        *,
        wall_clock: Clock = time.time,
        max_at_once: int = MAX_AT_ONCE,
    ) -> None:
        self._server = server
        self._cache = cache
        self._wall_clock = wall_clock
        self._max_at_once = max_at_once
        self._under_way = 0
        self._digest_key = secrets.token_bytes(32)

    def digest(self, client_id: str, client_secret: str) -> bytes:
        """Return what a pair is cached by."""
        message = f"{len(client_id)}\0{client_id}{client_secret}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(message, key=self._digest_key, digest_size=32).digest()

    def cached(self, digest: bytes) -> CachedToken | None:
        """The pair of a digest if it is cached and fresh. Never waits."""
        return self._cache.cached_digest(digest)

    async def lookup(self, client_id: str, client_secret: str, *, source: str) -> CachedToken:
        """The client at address `source` that shows this pair.

        Raises `InvalidTokenError`, `TooManyFailuresError`, `TemporarilyUnavailableError` and
        `StoreUnavailableError`.
        """
        digest = self.digest(client_id, client_secret)
        return await self._cache.lookup_digest(
            digest, lambda: self._verify(digest, client_id, client_secret, source)
        )

    async def _verify(
        self, digest: bytes, client_id: str, client_secret: str, source: str
    ) -> AccessToken | None:
        if self._under_way >= self._max_at_once:
            raise TemporarilyUnavailableError(reason="hashing_overloaded")
        self._under_way += 1
        try:
            registered = await self._server.store.clients.get_client(client_id)
            method = None
            if registered is not None:
                method = metadata_of(registered).token_endpoint_auth_method
            credentials = ClientCredentials(client_id, client_secret, _PLACES.get(method, "header"))
            authenticated = await self._server.authenticate(credentials, source=source)
        except InvalidClientError as error:
            if error.reason != error.error:  # the secret was right: no guess, and not for long
                raise InvalidTokenError(reason=error.reason) from None
            return None
        finally:
            self._under_way -= 1
        return self._describe(digest, authenticated.client)

    def _describe(self, digest: bytes, client: Client) -> AccessToken:
        expires_at = client.expires_at or NEVER
        metadata, now = metadata_of(client), self._wall_clock()
        if metadata.previous_secret(now) is not None:
            # Perhaps it is the previous secret that was shown: then it is looked at again.
            expires_at = min(expires_at, metadata.previous_secret_expires_at or NEVER)
        return AccessToken(
            digest=digest,
            client_id=client.client_id,
            client_name=client.client_name,
            scopes=client.scopes,
            issued_at=now,
            expires_at=expires_at,
            rate_limit=client.rate_limit,
            credential="client_secret",
        )
