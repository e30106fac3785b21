"""The registry of clients: what may be registered, changed and deleted, without HTTP.

RFC 7591 (registration) and RFC 7592 (its management). Every way in, be it an endpoint,
the admin API or the command line, ends here, so the rules hold on all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gateway.oauth.browser_origins import BrowserOrigins
from gateway.oauth.client_metadata import ClientMetadata, check_known, check_metadata, metadata_of
from gateway.oauth.credentials import SecretHasher, random_text
from gateway.oauth.errors import (
    ClientAlreadyExistsError,
    InvalidClientMetadataError,
    ManagedClientError,
)
from gateway.oauth.models import (
    Client,
    ClientExistsError,
    Clock,
    Store,
    client_owner,
)
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.refresh.family import REFRESH_FAMILY
from gateway.oauth.unused_clients import enter_unused
from gateway.oauth.users.tokens import USER
from gateway.rate_limit import RateLimit

# No space, because the id travels in headers and logs; no colon, because clients that
# don't percent-encode could not use such an id in HTTP Basic (RFC 6749 section 2.3.1).
# A letter or digit, because `-` reads as no client in a log, and `.` and `..` are no path segments.
_CLIENT_ID = re.compile(r"(?=[!-~]*[A-Za-z0-9])[!-9;-~]{1,255}")
# Letters that show nothing: fillers of Hangul, and the empty pattern of Braille.
_UNSEEN = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_CLIENT_SECRET = re.compile(r"[ -~]{1,256}")
MAX_NAME_LENGTH = 200
_EXPIRED = "A client with this id is registered, and has expired."
UPDATE_ATTEMPTS = 5
"""How often a change is retried where the client was changed concurrently."""


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client and its secret, which exists only here and in the one reply."""

    client: Client
    client_secret: str = field(repr=False)
    """Empty for a client that proves who it is in another way."""
    is_replacement: bool = False
    is_renewal: bool = False
    """Whether it was there already with this secret; its tokens stay."""


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
        self.browser_origins = BrowserOrigins(store, wall_clock=wall_clock)

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
        """Register a client; id and secret are generated where they are not given.

        `is_trusted` is the word of an operator; without it, the client gets what the policy
        offers to those that register over HTTP, and replaces none but such a client, which keeps
        its limits (`scopes`, `audiences`, rate limit) and, with the same secret, its tokens. With
        `dry_run`, everything is checked and nothing is kept.

        Raises `InvalidClientMetadataError`, `InvalidRedirectUriError`,
        `ClientAlreadyExistsError`, `TemporarilyUnavailableError` and `StoreUnavailableError`.
        """
        metadata = metadata or ClientMetadata()
        is_id_chosen = bool(client_id)
        client_id = client_id or self._random_text(16)
        client_name = client_name or client_id
        offered = self._policy.scopes if is_trusted else self._policy.registrable_scopes
        granted = tuple(scopes) if scopes is not None else offered
        check_client_id(client_id)
        if not is_trusted:
            self._check_self_registration(client_id, is_chosen=is_id_chosen)
            if metadata.skip_consent:
                raise InvalidClientMetadataError("skip_consent is for an operator to give.")
            metadata = replace(metadata, registered_by=_registered_by(self._policy))
        self._check(client_name, granted, metadata, is_trusted=is_trusted)
        await self._check_name_is_no_users(client_id)
        client_secret, secret_hash = await self._choose_secret(client_secret, metadata)
        now = self._wall_clock()
        end = self._registration_end(now)
        if not is_trusted and self._policy.is_registration_open:
            metadata, end = self._unused(metadata, end, now)
        client = Client(
            client_id=client_id,
            client_name=client_name,
            secret_hash=secret_hash,
            scopes=granted,
            created_at=now,
            expires_at=end,
            # From the clock, so that a client deleted and created again never has the
            # generation of its namesake.
            generation=int(now * 1_000_000),
            metadata=metadata.stored(),
        )
        if dry_run:
            if not replace_existing and await self.store.clients.get_client(client_id) is not None:
                raise ClientAlreadyExistsError
            return RegisteredClient(client, client_secret)
        try:
            await self.store.clients.add_client(client)
            registered = RegisteredClient(client, client_secret)
        except ClientExistsError:
            registered = await self._replace(
                client, client_secret, may_replace=replace_existing, is_trusted=is_trusted
            )
        if metadata.redirect_uris or registered.is_renewal:
            await self.browser_origins.enter(registered.client)
        if metadata.unused_until is not None:
            await enter_unused(self.store.records, registered.client, metadata.unused_until)
        return registered

    async def _replace(
        self, client: Client, client_secret: str, *, may_replace: bool, is_trusted: bool
    ) -> RegisteredClient:
        """Register a client in place of its namesake, as far as that is allowed."""
        old = await self.store.clients.get_client(client.client_id)
        if old is None:  # gone meanwhile
            raise ClientAlreadyExistsError
        # What an operator set for a client outlives what replaces it.
        client = replace(client, rate_limit=old.rate_limit)
        if is_trusted:
            if not may_replace:
                raise ClientAlreadyExistsError
            require_unmanaged(old)
            await self.store.clients.replace_client(client)
            return RegisteredClient(client, client_secret, is_replacement=True)
        is_expired = old.is_expired(self._wall_clock())
        before = metadata_of(old)
        if before.registered_by is None or not (may_replace or is_expired):
            raise ClientAlreadyExistsError(_EXPIRED if is_expired else "")
        metadata = metadata_of(client)
        client = replace(
            client,
            scopes=tuple(name for name in client.scopes if name in old.scopes),
            metadata=replace(
                metadata,
                grant_types=tuple(
                    grant for grant in metadata.grant_types if grant in before.grant_types
                )
                or before.grant_types,
                audiences=before.audiences,
                access_token_format=before.access_token_format,
            ).stored(),
        )
        if await self.is_secret(old, client_secret):
            renewed = replace(client, secret_hash=old.secret_hash, created_at=old.created_at)
            updated = await self.store.clients.update_client(renewed, generation=old.generation)
            if updated is None:
                raise ClientAlreadyExistsError
            return RegisteredClient(updated, client_secret, is_renewal=True)
        if not may_replace:
            raise ClientAlreadyExistsError(_EXPIRED)
        await self.store.clients.replace_client(client)
        return RegisteredClient(client, client_secret, is_replacement=True)

    async def update_client(
        self,
        client_id: str,
        *,
        client_name: str | None = None,
        scopes: Sequence[str] | None = None,
        metadata: Callable[[ClientMetadata], ClientMetadata] = lambda metadata: metadata,
        is_trusted: bool = True,
        renews: bool = False,
    ) -> Client | None:
        """Change what a client is registered with; None where there is no such client. Tokens
        already issued stay as they are. With `renews`, the registration is extended, too.

        Raises `InvalidClientMetadataError`, `InvalidRedirectUriError`, `ManagedClientError` and
        `StoreUnavailableError`.
        """
        for _ in range(UPDATE_ATTEMPTS):
            client = await self.store.clients.get_client(client_id)
            if client is None:
                return None
            require_unmanaged(client)
            old = metadata_of(client)
            new = metadata(old)
            if new.uses_secret and not client.secret_hash:
                raise InvalidClientMetadataError(
                    "A client without a secret cannot authenticate with one; register it again.",
                    member="token_endpoint_auth_method",
                )
            changed = replace(
                client,
                client_name=client_name or client.client_name,
                scopes=client.scopes if scopes is None else tuple(scopes),
                metadata=new.stored(),
                expires_at=(
                    self._registration_end(self._wall_clock())
                    if renews and old.unused_until is None
                    else client.expires_at
                ),
            )
            # One of before the rules for names were stricter can stay as it is.
            self._check(client_name or None, changed.scopes, new, is_trusted=is_trusted)
            updated = await self.store.clients.update_client(changed, generation=client.generation)
            if updated is not None:
                if (old.redirect_uris, old.grant_types) != (new.redirect_uris, new.grant_types):
                    await self.browser_origins.enter(updated)
                return updated
        return None

    async def renew_client(self, client_id: str) -> Client | None:
        """Extend a registration; None where there is no such client.

        Raises `ManagedClientError` and `StoreUnavailableError`.
        """
        if await self._find_unmanaged(client_id) is None:
            return None
        end = self._registration_end(self._wall_clock())
        return await self.store.clients.set_client_expiry(client_id, end)

    async def rotate_secret(
        self,
        client_id: str,
        *,
        client_secret: str | None = None,
        revoke_tokens: bool = False,
        overlap_s: float = 0.0,
    ) -> RegisteredClient | None:
        """Give a client a new secret; the old one works for another `overlap_s`, and stops
        immediately without. Tokens stay valid unless `revoke_tokens`. None where there is no such
        client.

        Raises `InvalidClientMetadataError`, `ManagedClientError`, `TemporarilyUnavailableError`
        and `StoreUnavailableError`.
        """
        existing = await self._find_unmanaged(client_id)
        if existing is None:
            return None
        if not metadata_of(existing).uses_secret:
            raise InvalidClientMetadataError("This client does not authenticate by a secret.")
        client_secret = client_secret or self._random_text(32)
        check_secret(client_secret)
        secret_hash = await self._hasher.hash(client_secret)
        # First: whatever comes between, one of the two secrets works.
        if await self._keep_previous_secret(client_id, overlap_s=overlap_s) is None:
            return None
        client = await self.store.clients.set_client_secret(client_id, secret_hash)
        if client is None:
            return None
        if revoke_tokens:
            await self.revoke_client_tokens(client_id)
        return RegisteredClient(client, client_secret)

    async def end_overlap(self, client_id: str) -> Client | None:
        """End the time in which a client's previous secret works. None where there is no such
        client. Raises `ManagedClientError` and `StoreUnavailableError`."""
        if await self._find_unmanaged(client_id) is None:
            return None
        return await self._keep_previous_secret(client_id, overlap_s=0.0)

    async def limit_client(self, client_id: str, rate_limit: RateLimit | None) -> Client | None:
        """Give a client a rate limit of its own, or take it away. None where there is no such
        client. Raises `ManagedClientError` and `StoreUnavailableError`."""
        if await self._find_unmanaged(client_id) is None:
            return None
        return await self.store.clients.set_client_rate_limit(client_id, rate_limit)

    async def delete_client(self, client_id: str) -> int | None:
        """Delete a client with its tokens. How many were live; None where there is no such client.
        Raises `ManagedClientError` and `StoreUnavailableError`."""
        if await self._find_unmanaged(client_id) is None:
            return None
        return await self.store.clients.delete_client(client_id)

    async def release_client(self, client_id: str) -> Client | None:
        """Have a client no longer belong to the configuration that declares it. One that was
        disabled stays so until it is renewed. None where there is no such client. Raises
        `StoreUnavailableError`."""
        for _ in range(UPDATE_ATTEMPTS):
            client = await self.store.clients.get_client(client_id)
            if client is None or metadata_of(client).managed_by is None:
                return client
            metadata = replace(metadata_of(client), managed_by=None, disabled_at=None).stored()
            released = await self.store.clients.update_client(
                replace(client, metadata=metadata), generation=client.generation
            )
            if released is not None:
                return released
        return None

    async def _find_unmanaged(self, client_id: str) -> Client | None:
        client = await self.store.clients.get_client(client_id)
        if client is not None:
            require_unmanaged(client)
        return client

    async def _keep_previous_secret(self, client_id: str, *, overlap_s: float) -> Client | None:
        """Have the current secret work for `overlap_s` after it is replaced, none before it."""
        for _ in range(UPDATE_ATTEMPTS):
            client = await self.store.clients.get_client(client_id)
            if client is None:
                return None
            old = metadata_of(client)
            new = replace(
                old,
                previous_secret_hash=client.secret_hash if overlap_s else None,
                previous_secret_expires_at=self._wall_clock() + overlap_s if overlap_s else None,
            )
            if new == old:
                return client
            updated = await self.store.clients.update_client(
                replace(client, metadata=new.stored()), generation=client.generation
            )
            if updated is not None:
                return updated
        return None

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
                    "client_secret is not used with token_endpoint_auth_method "
                    f"{metadata.token_endpoint_auth_method}.",
                    member="client_secret",
                )
            return "", ""
        client_secret = client_secret or self._random_text(32)
        check_secret(client_secret)
        return client_secret, await self._hasher.hash(client_secret)

    def _check(
        self,
        client_name: str | None,
        scopes: Sequence[str],
        metadata: ClientMetadata,
        *,
        is_trusted: bool,
    ) -> None:
        check_registration(client_name, scopes, metadata, self._policy, is_trusted=is_trusted)

    def _check_self_registration(self, client_id: str, *, is_chosen: bool) -> None:
        # RFC 9700 section 4.15: an id that others go by is not the client's to choose.
        if is_chosen and self._policy.is_registration_open:
            raise InvalidClientMetadataError(
                "client_id can't be chosen where registration is open; leave it out."
            )
        if client_id in self._policy.reserved_client_ids:
            raise InvalidClientMetadataError(
                f"The client_id {client_id!r} is reserved for a client that an operator registers."
            )

    def _unused(
        self, metadata: ClientMetadata, end: float | None, now: float
    ) -> tuple[ClientMetadata, float | None]:
        """The metadata of a client that no operator knows, and the end of its registration, until
        its first use."""
        unused_s = self._policy.unused_client_ttl_s
        if unused_s is None or (end is not None and end <= now + unused_s):
            return metadata, end
        return replace(metadata, unused_until=now + unused_s), now + unused_s

    def _registration_end(self, now: float) -> float | None:
        ttl_s = self._policy.client_ttl_s
        return None if ttl_s is None else now + ttl_s


def check_client_id(client_id: str) -> None:
    """Raises `InvalidClientMetadataError` for what can't be the id of a client."""
    if not _CLIENT_ID.fullmatch(client_id):
        raise InvalidClientMetadataError(
            "client_id must be 1 to 255 visible ASCII characters without a colon, one of them "
            f"a letter or digit, unlike {client_id[:100]!r}.",
            member="client_id",
        )


def check_registration(
    client_name: str | None,
    scopes: Sequence[str],
    metadata: ClientMetadata,
    policy: ProviderPolicy,
    *,
    is_trusted: bool,
) -> None:
    """Raises `InvalidClientMetadataError` and `InvalidRedirectUriError`."""
    if client_name is not None and not is_name(client_name):
        # It is what users see on the page that asks for their consent.
        raise InvalidClientMetadataError(
            f"client_name must be at most {MAX_NAME_LENGTH} printable characters that can be "
            f"seen, one of them a letter or digit, unlike {client_name[:100]!r}.",
            member="client_name",
        )
    check_known("scope", scopes, policy.scopes, member="scope")
    check_metadata(metadata, policy, is_trusted=is_trusted)


def require_unmanaged(client: Client) -> None:
    """Raises `ManagedClientError` for a client that a configuration declares."""
    if (owner := metadata_of(client).managed_by) is not None:
        raise ManagedClientError(owner)


def is_name(text: str) -> bool:
    """Whether a text can name a client: short, printable, and something of it can be seen."""
    return (
        len(text) <= MAX_NAME_LENGTH
        and text.isprintable()
        and any(map(str.isalnum, text))
        and _UNSEEN.isdisjoint(text)
    )


def _registered_by(policy: ProviderPolicy) -> Literal["token", "open"]:
    return "open" if policy.is_registration_open else "token"


def check_secret(client_secret: str) -> None:
    """Raises `InvalidClientMetadataError` for what can't be the secret of a client."""
    if not _CLIENT_SECRET.fullmatch(client_secret):
        raise InvalidClientMetadataError(
            "client_secret must be 1 to 256 printable ASCII characters.", member="client_secret"
        )
