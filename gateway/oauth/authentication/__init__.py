"""Client authentication: one entry point for all methods.

Whatever was wrong, the response is the same, and a client that fails too often is refused
for a while, before any work is done for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from weakref import WeakValueDictionary

from cachetools import TTLCache

from gateway.addresses import source_of
from gateway.metrics import Metrics
from gateway.oauth.authenticated import AuthenticatedClient
from gateway.oauth.authentication.assertion import AssertionVerifier
from gateway.oauth.authentication.certificate import certificate_matches
from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.client_metadata import ClientMetadata, metadata_of
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.errors import InvalidClientError, TooManyFailuresError
from gateway.oauth.limiter import UNKNOWN, FailedClientLimiter
from gateway.oauth.models import Client, ClientStore, Clock, StoreUnavailableError
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.workloads.clients import WorkloadClients
from gateway.oauth.workloads.tokens import WorkloadError

__all__ = ["AuthenticatedClient", "ClientAuthenticator"]

RENEWAL_INTERVAL_S = 86400.0
UPDATE_ATTEMPTS = 5
REPORT_INTERVAL_S = 600.0
"""How often the log says that a client whose registration has ended still comes."""
MAX_REPORTED = 1000
MAX_CLIENT_ID_CHARS = 255
"""What no client is called has no place in memory: not even among those that fail."""

# Where a secret may come from for a client that registered one way; None is any.
_PLACES = {None: None, "client_secret_basic": "basic", "client_secret_post": "form"}


_log = logging.getLogger(__name__)


class ClientAuthenticator:
    """Authenticates clients (RFC 6749 section 2.3)."""

    def __init__(
        self,
        clients: ClientStore,
        hasher: SecretHasher,
        assertions: AssertionVerifier,
        limiter: FailedClientLimiter,
        metrics: Metrics,
        *,
        policy: ProviderPolicy,
        workloads: WorkloadClients,
        wall_clock: Clock = time.time,
    ) -> None:
        self._clients = clients
        self._workloads = workloads
        self._hasher = hasher
        self._assertions = assertions
        self._limiter = limiter
        self._metrics = metrics
        self._policy = policy
        self._wall_clock = wall_clock
        self._verifying: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._reported: TTLCache[str, bool] = TTLCache(MAX_REPORTED, REPORT_INTERVAL_S)

    async def authenticate(
        self, credentials: ClientCredentials, *, certificate: bytes | None = None, source: str
    ) -> AuthenticatedClient:
        """The client at address `source`, whose connection brought `certificate` (DER), if any.

        Raises `TooManyFailuresError` before any hash is computed, `InvalidClientError`,
        `TemporarilyUnavailableError` and `StoreUnavailableError`.
        """
        if len(credentials.client_id) > MAX_CLIENT_ID_CHARS:
            raise InvalidClientError
        if workload := await self._find_workload(credentials, certificate):
            return workload
        if not credentials.client_id:
            raise InvalidClientError("No client credentials were given.")
        source = source_of(source)
        if known := await self._find_known(credentials, source):
            return await self._accept(known, source)
        # One at a time for each pair, or a burst of guesses would all be on their way
        # before the first failure counts.
        pair = (credentials.client_id, source)
        async with self._verifying.setdefault(pair, asyncio.Lock()):
            return await self._authenticate(credentials, certificate, source)

    async def _find_workload(
        self, credentials: ClientCredentials, certificate: bytes | None
    ) -> AuthenticatedClient | None:
        """The client that a workload is, by a token of its platform or by its certificate. Nothing
        there can be guessed: failures are not limited.

        Raises `InvalidClientError` and `StoreUnavailableError`.
        """
        try:
            if credentials.is_platform_token and credentials.assertion is not None:
                assertion, client_id = credentials.assertion, credentials.client_id
                if not self._workloads.is_known(assertion):
                    raise InvalidClientError
                return await self._workloads.authenticate(assertion, client_id)
            if credentials.is_id_alone and certificate is not None:
                return await self._workloads.find_by_certificate(certificate, credentials.client_id)
        except WorkloadError as error:
            raise InvalidClientError(error.description, reason=error.reason) from None
        return None

    async def _authenticate(
        self, credentials: ClientCredentials, certificate: bytes | None, source: str
    ) -> AuthenticatedClient:
        client_id = credentials.client_id
        retry_after_s = self._limiter.retry_after_s(client_id, source)
        if retry_after_s is not None and not await self._was_changed(client_id, source):
            self._metrics.provider.failed_client_limited.inc()
            raise TooManyFailuresError(retry_after_s)
        client = await self._clients.get_client(client_id)
        metadata = metadata_of(client) if client else ClientMetadata()
        is_proven = await self._is_proven(client, metadata, credentials, certificate, source)
        if client is None or not is_proven:
            self._limiter.fail(client_id, source, state=_state_of(client))
            raise InvalidClientError
        return await self._accept(client, source)

    async def _find_known(self, credentials: ClientCredentials, source: str) -> Client | None:
        """The client, where its secret was verified a short time ago: that is no guess, so it
        need not wait for others of the same client and address.

        Raises `StoreUnavailableError`.
        """
        if credentials.place is None:
            return None
        if self._limiter.retry_after_s(credentials.client_id, source) is not None:
            return None
        client = await self._clients.get_client(credentials.client_id)
        if client is None or not _takes_secret(metadata_of(client), credentials):
            return None
        is_known = self._hasher.was_right(credentials.client_secret, client.secret_hash or "")
        return client if is_known else None

    async def _accept(self, client: Client, source: str) -> AuthenticatedClient:
        """Conclude the authentication of a client that has proven who it is."""
        if client.is_expired(self._wall_clock()):
            # No guess: the proof was right. The caller learns no more than from a wrong one.
            self._report_end(client)
            if metadata_of(client).disabled_at is not None:
                raise InvalidClientError(reason="client_disabled")
            raise InvalidClientError(reason="client_expired")
        self._limiter.succeed(client.client_id, source)
        client = await self._renew(client, metadata_of(client))
        return AuthenticatedClient(client, metadata_of(client))

    def _report_end(self, client: Client) -> None:
        """Report to the operator, once in a while for each client, that it has proven who it is
        in vain."""
        if client.client_id in self._reported:
            return
        self._reported[client.client_id] = True
        metadata = metadata_of(client)
        ended = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(client.expires_at))
        if metadata.disabled_at is None:
            _log.warning(
                "client %r authenticated correctly, but its registration expired on %s: "
                "`gateway client renew` extends it",
                client.client_id,
                ended,
            )
        else:
            _log.warning(
                "client %r authenticated correctly, but is disabled since %s: the configuration "
                "(clients_owner %r) no longer declares it",
                client.client_id,
                ended,
                metadata.managed_by,
            )

    async def _was_changed(self, client_id: str, source: str) -> bool:
        """Whether the client is another one than when it failed: registered, renewed, or given a
        new secret since. Then its failures are forgotten."""
        failed_as = self._limiter.state_to_compare(client_id, source)
        if failed_as is None or failed_as == _state_of(await self._clients.get_client(client_id)):
            return False
        self._limiter.succeed(client_id, source)
        return True

    async def _renew(self, client: Client, metadata: ClientMetadata) -> Client:
        """Extend the registration of a client in use, where the policy says so, at most once in a
        tenth of its lifetime."""
        if metadata.unused_until is not None:
            return await self._use_first(client)
        ttl_s, now, renewed = self._policy.client_ttl_s, self._wall_clock(), self._policy.renew
        is_renewed = renewed == "all" or (renewed == "public" and not metadata.uses_secret)
        if ttl_s is None or client.expires_at is None or not is_renewed:
            return client
        if client.expires_at - now > ttl_s - min(ttl_s / 10, RENEWAL_INTERVAL_S):
            return client
        with contextlib.suppress(StoreUnavailableError):  # the next use will do it
            return await self._clients.set_client_expiry(client.client_id, now + ttl_s) or client
        return client

    async def _use_first(self, client: Client) -> Client:
        """Have a client that registered itself live as long as others, from its first use on.
        Raises `StoreUnavailableError`."""
        ttl_s = self._policy.client_ttl_s
        end = None if ttl_s is None else self._wall_clock() + ttl_s
        for _ in range(UPDATE_ATTEMPTS):
            used = replace(metadata_of(client), unused_until=None).stored()
            changed = replace(client, metadata=used, expires_at=end)
            updated = await self._clients.update_client(changed, generation=client.generation)
            if updated is not None:
                return updated
            # Used by two requests at once.
            client = await self._clients.get_client(client.client_id) or client
            if metadata_of(client).unused_until is None:
                break
        return client

    async def _is_proven(
        self,
        client: Client | None,
        metadata: ClientMetadata,
        credentials: ClientCredentials,
        certificate: bytes | None,
        source: str,
    ) -> bool:
        method = metadata.token_endpoint_auth_method
        if credentials.place is not None:
            return await self._is_secret(client, metadata, credentials, source)
        if credentials.assertion is not None:
            if client is None or method != "private_key_jwt":
                # The same work: the time it takes must not disclose that there is such a client.
                self._assertions.verify_in_vain(credentials.assertion)
                return False
            return await self._assertions.verify(client, metadata, credentials.assertion)
        if client is None:
            return False
        if certificate is not None and certificate_matches(metadata, certificate):
            return True
        return method == "none"

    async def _is_secret(
        self,
        client: Client | None,
        metadata: ClientMetadata,
        credentials: ClientCredentials,
        source: str,
    ) -> bool:
        is_allowed = _takes_secret(metadata, credentials)
        # Hashed in any case: the time it takes must not disclose what the client is.
        secret_hash = client.secret_hash if client and is_allowed else None
        if await self._hasher.verify(credentials.client_secret, secret_hash or None, source=source):
            return True
        previous = metadata.previous_secret(self._wall_clock()) if is_allowed else None
        return previous is not None and await self._hasher.verify(
            credentials.client_secret, previous, source=source
        )


def _takes_secret(metadata: ClientMetadata, credentials: ClientCredentials) -> bool:
    """Whether the client may show a secret where it did."""
    place = _PLACES.get(metadata.token_endpoint_auth_method, "")
    return metadata.uses_secret and place in {None, credentials.place}


def _state_of(client: Client | None) -> str:
    """Return a text that differs after each change by an operator."""
    return UNKNOWN if client is None else f"{client.generation} {client.expires_at}"
