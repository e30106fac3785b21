"""The registry of clients: what may be registered, changed and deleted, without HTTP.

RFC 7591 (registration) and RFC 7592 (its management). Every way in, be it an endpoint,
the admin API or the command line, ends here, so the rules hold on all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gateway.oauth.client_metadata import ClientMetadata, check_known, check_metadata, metadata_of
from gateway.oauth.credentials import SecretHasher, random_text
from gateway.oauth.errors import ClientAlreadyExistsError, InvalidClientMetadataError
from gateway.oauth.models import (
    Client,
    ClientExistsError,
    Clock,
    Store,
    client_owner,
)
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.refresh.family import REFRESH_FAMILY
from gateway.oauth.users.tokens import USER

# No space, because the id travels in headers and logs; no colon, because clients that
# don't percent-encode could not use such an id in HTTP Basic (RFC 6749 section 2.3.1).
_CLIENT_ID = re.compile(r"[!-9;-~]{1,255}")
_CLIENT_SECRET = re.compile(r"[ -~]{1,256}")
MAX_NAME_LENGTH = 200
UPDATE_ATTEMPTS = 5
"""How often a change is retried where the client was changed concurrently."""


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client and its secret, which exists only here and in the one reply."""

    client: Client
    client_secret: str = field(repr=False)
    """Empty for a client that proves who it is in another way."""
    is_replacement: bool = False


class ClientRegistry:
    """Registers clients and looks after them."""

    def __init__(
        self,
        store: Store,
        policy: ProviderPolicy,
        hasher: SecretHasher,
        *,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        self.store = store
        self._policy = policy
        self._hasher = hasher
        self._wall_clock = wall_clock
        self._random_text = random_text

    async def register_client(
        self,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        client_name: str | None = None,
        scopes: Sequence[str] | None = None,
        metadata: ClientMetadata | None = None,
        replace_existing: bool = False,
        is_trusted: bool = True,
        dry_run: bool = False,
    ) -> RegisteredClient:
        """Register a client; id and secret are made up where they are not given.

        `is_trusted` is the word of an operator; without it, what reaches out of the gateway
        (`jwks_uri`) is restricted by the policy. With `dry_run`, everything is checked and
        nothing is kept.

        Raises `InvalidClientMetadataError`, `InvalidRedirectUriError`,
        `ClientAlreadyExistsError`, `TemporarilyUnavailableError` and `StoreUnavailableError`.
        """
        metadata = metadata or ClientMetadata()
        client_id = client_id or self._random_text(16)
        client_name = client_name or client_id
        granted = tuple(scopes) if scopes is not None else self._policy.scopes
        if not _CLIENT_ID.fullmatch(client_id):
            raise InvalidClientMetadataError(
                "client_id must be 1 to 255 visible ASCII characters without a colon."
            )
        if metadata.skip_consent and not is_trusted:
            raise InvalidClientMetadataError("skip_consent is for an operator to give.")
        self._check(client_name, granted, metadata, is_trusted=is_trusted)
        await self._check_name_is_no_users(client_id)
        client_secret, secret_hash = await self._choose_secret(client_secret, metadata)
        now = self._wall_clock()
        client = Client(
            client_id=client_id,
            client_name=client_name,
            secret_hash=secret_hash,
            scopes=granted,
            created_at=now,
            expires_at=self._registration_end(now),
            # From the clock, so that a client deleted and created again never has the
            # generation of its namesake.
            generation=int(now * 1_000_000),
            metadata=metadata.stored(),
        )
        if dry_run:
            if not replace_existing and await self.store.clients.get_client(client_id) is not None:
                raise ClientAlreadyExistsError
            return RegisteredClient(client, client_secret)
        if not replace_existing:
            try:
                await self.store.clients.add_client(client)
            except ClientExistsError:
                raise ClientAlreadyExistsError from None
            return RegisteredClient(client, client_secret)
        is_replacement = await self.store.clients.get_client(client_id) is not None
        await self.store.clients.replace_client(client)
        return RegisteredClient(client, client_secret, is_replacement)

    async def update_client(
        self,
        client_id: str,
        *,
        client_name: str | None = None,
        scopes: Sequence[str] | None = None,
        metadata: Callable[[ClientMetadata], ClientMetadata] = lambda metadata: metadata,
        is_trusted: bool = True,
    ) -> Client | None:
        """Change what a client is registered with; None where there is no such client. Tokens
        already issued stay as they are.

        Raises `InvalidClientMetadataError`, `InvalidRedirectUriError` and
        `StoreUnavailableError`.
        """
        for _ in range(UPDATE_ATTEMPTS):
            client = await self.store.clients.get_client(client_id)
            if client is None:
                return None
            old = metadata_of(client)
            new = metadata(old)
            if new.uses_secret and not client.secret_hash:
                raise InvalidClientMetadataError(
                    "A client without a secret cannot authenticate with one; register it again."
                )
            changed = replace(
                client,
                client_name=client_name or client.client_name,
                scopes=client.scopes if scopes is None else tuple(scopes),
                metadata=new.stored(),
            )
            self._check(changed.client_name, changed.scopes, new, is_trusted=is_trusted)
            updated = await self.store.clients.update_client(changed, generation=client.generation)
            if updated is not None:
                return updated
        return None

    async def renew_client(self, client_id: str) -> Client | None:
        """Extend a registration; None where there is no such client.

        Raises `StoreUnavailableError`.
        """
        end = self._registration_end(self._wall_clock())
        return await self.store.clients.set_client_expiry(client_id, end)

    async def rotate_secret(
        self, client_id: str, *, client_secret: str | None = None, revoke_tokens: bool = False
    ) -> RegisteredClient | None:
        """Give a client a new secret; the old one stops at once. Tokens stay valid unless
        `revoke_tokens`. None where there is no such client.

        Raises `InvalidClientMetadataError`, `TemporarilyUnavailableError` and
        `StoreUnavailableError`.
        """
        existing = await self.store.clients.get_client(client_id)
        if existing is None:
            return None
        if not metadata_of(existing).uses_secret:
            raise InvalidClientMetadataError("This client does not authenticate by a secret.")
        client_secret = client_secret or self._random_text(32)
        _check_secret(client_secret)
        secret_hash = await self._hasher.hash(client_secret)
        client = await self.store.clients.set_client_secret(client_id, secret_hash)
        if client is None:
            return None
        if revoke_tokens:
            await self.store.tokens.revoke_client_tokens(client_id)
            owner = client_owner(client_id)
            await self.store.records.delete_owned_records(REFRESH_FAMILY, owner)
        return RegisteredClient(client, client_secret)

    async def search_clients(
        self, text: str, *, after: str = "", limit: int = 100
    ) -> Sequence[Client]:
        """Up to `limit` clients whose id or name holds `text`, by id, after that of `after`; all
        clients where there is no text. Raises `StoreUnavailableError`."""
        if not text:
            return await self.store.clients.list_clients(after=after, limit=limit)
        return await self.store.usage.search_clients(text, after=after, limit=limit)

    async def revoke_client_tokens(self, client_id: str) -> int | None:
        """Revoke every token of a client, which stays. How many were live; None where there is
        no such client. Raises `StoreUnavailableError`."""
        if await self.store.clients.get_client(client_id) is None:
            return None
        # First what could give it new ones.
        await self.store.records.delete_owned_records(REFRESH_FAMILY, client_owner(client_id))
        return await self.store.tokens.revoke_client_tokens(client_id)

    async def is_secret(self, client: Client, client_secret: str) -> bool:
        """Whether this is the client's secret. Raises `TemporarilyUnavailableError`."""
        return await self._hasher.verify(client_secret, client.secret_hash or None)

    def now(self) -> float:
        """Unix time, by the clock that the registry goes by."""
        return self._wall_clock()

    async def _check_name_is_no_users(self, client_id: str) -> None:
        # RFC 9700 section 4.15: a client must not pass for a user by its id.
        if await self.store.records.get_record(USER, client_id) is not None:
            raise ClientAlreadyExistsError

    async def _choose_secret(
        self, client_secret: str | None, metadata: ClientMetadata
    ) -> tuple[str, str]:
        if not metadata.uses_secret:
            if client_secret:
                raise InvalidClientMetadataError(
                    "client_secret is not used with this token_endpoint_auth_method."
                )
            return "", ""
        client_secret = client_secret or self._random_text(32)
        _check_secret(client_secret)
        return client_secret, await self._hasher.hash(client_secret)

    def _check(
        self,
        client_name: str,
        scopes: Sequence[str],
        metadata: ClientMetadata,
        *,
        is_trusted: bool,
    ) -> None:
        if len(client_name) > MAX_NAME_LENGTH or not client_name.isprintable():
            raise InvalidClientMetadataError(
                f"client_name must be at most {MAX_NAME_LENGTH} printable characters."
            )
        check_known("scope", scopes, self._policy.scopes)
        check_metadata(metadata, self._policy, is_trusted=is_trusted)

    def _registration_end(self, now: float) -> float | None:
        ttl_s = self._policy.client_ttl_s
        return None if ttl_s is None else now + ttl_s


def _check_secret(client_secret: str) -> None:
    if not _CLIENT_SECRET.fullmatch(client_secret):
        raise InvalidClientMetadataError(
            "client_secret must be 1 to 256 printable ASCII characters."
        )
