"""Clients that are known by the URL of their metadata (Client ID Metadata Documents).

The id of such a client is an https URL, at which its metadata is: nothing is registered. The
document is read when an authorization request names it, as often as its cache headers ask for; what
it says is stored, as that of other clients, once a user has signed in.

draft-ietf-oauth-client-id-metadata-document.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from cachetools import TLRUCache

from gateway.addresses import source_of
from gateway.oauth.authentication import AuthenticatedClient
from gateway.oauth.browser_origins import BrowserOrigins
from gateway.oauth.client_metadata import (
    ClientMetadata,
    check_metadata,
    keep_internal,
    metadata_of,
)
from gateway.oauth.clients import UPDATE_ATTEMPTS, is_name
from gateway.oauth.errors import InvalidClientMetadataError, OAuthError
from gateway.oauth.issuer_metadata import FetchError
from gateway.oauth.models import Client, ClientExistsError, Clock, Store
from gateway.oauth.policy import USER_GRANTS, ProviderPolicy
from gateway.oauth.self_registration import is_known_host, read_registration
from gateway.rate_limit import Demand, LocalRateLimits

CACHE_ENTRIES = 1000
DEFAULT_AGE_S = 300.0
MIN_AGE_S = 60.0
MAX_AGE_S = 86400.0
FAILURE_AGE_S = 60.0
MAX_ID_CHARS = 255
_URL = re.compile(r"https://[a-z0-9.-]+(?::[0-9]{1,5})?(/[!-~]*)")
_METHODS = ("none", "private_key_jwt")  # no set: what a document says may not be hashable


class ClientDocumentError(Exception):
    """The document of a client can't be used; the text says why."""


@dataclass(frozen=True, slots=True)
class FetchedDocument:
    """A document, and how long it may be kept."""

    members: Mapping[str, object]
    max_age_s: float | None
    """Seconds; None where it does not say."""


@dataclass(frozen=True, slots=True)
class _Kept:
    name: str
    metadata: ClientMetadata
    age_s: float
    problem: str = ""
    """Why there is none."""


class ClientDocuments:
    """Reads the documents of clients."""

    def __init__(
        self,
        store: Store,
        policy: ProviderPolicy,
        fetch: Callable[[str], Awaitable[FetchedDocument]],
        *,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        """`fetch` gets a document by its URL, or raises `FetchError`."""
        self._store = store
        self._fetch = fetch
        self._clock = clock
        self._wall_clock = wall_clock
        self._origins = BrowserOrigins(store, wall_clock=wall_clock)
        self._rates = LocalRateLimits(clock=clock)
        self._fetching: dict[str, asyncio.Task[_Kept]] = {}
        self._cache: TLRUCache[str, _Kept] = TLRUCache(
            CACHE_ENTRIES, ttu=lambda _, kept, now: now + kept.age_s, timer=clock
        )
        self.reconfigure(policy)

    def reconfigure(self, policy: ProviderPolicy) -> None:
        """Go by other rules from now on."""
        self._policy = policy
        # As narrow as where every peer can register, and for users only.
        self._rules = replace(
            policy,
            registration_mode="open",
            registration_grant_types=tuple(
                grant for grant in policy.registrable_grant_types if grant in USER_GRANTS
            )
            or USER_GRANTS,
        )
        self._cache.clear()

    def knows(self, client_id: str) -> bool:
        """Whether a client id is the URL of a document."""
        return self._policy.client_document_hosts is not None and client_id.startswith("https://")

    async def find(self, client_id: str, *, source: str) -> Client:
        """The client whose document is at a URL, requested by `source`.

        Raises `ClientDocumentError` and `StoreUnavailableError`.
        """
        kept = await self._read(client_id, source)
        if kept.problem:
            raise ClientDocumentError(kept.problem)
        stored = await self._store.clients.get_client(client_id)
        return self._join(client_id, kept, stored)

    async def keep(self, client: AuthenticatedClient) -> AuthenticatedClient:
        """Store what the document of a client says, since a user is about to allow it something.
        Raises `StoreUnavailableError`."""
        clients, wanted = self._store.clients, client.client
        for _ in range(UPDATE_ATTEMPTS):
            stored = await clients.get_client(wanted.client_id)
            if stored is None:
                try:
                    await clients.add_client(wanted)
                except ClientExistsError:
                    continue
                await self._origins.enter(wanted)
                return client
            joined = replace(
                stored,
                client_name=wanted.client_name,
                scopes=wanted.scopes,
                metadata=keep_internal(client.metadata, metadata_of(stored)).stored(),
                expires_at=wanted.expires_at,
            )
            is_same = (stored.client_name, stored.scopes, stored.metadata) == (
                joined.client_name, joined.scopes, joined.metadata,
            )  # fmt: skip
            if is_same and not stored.is_expired(self._wall_clock()):
                return AuthenticatedClient(stored, metadata_of(stored))
            updated = await clients.update_client(joined, generation=stored.generation)
            if updated is not None:
                await self._origins.enter(updated)
                return AuthenticatedClient(updated, metadata_of(updated))
        return client

    def _join(self, client_id: str, kept: _Kept, stored: Client | None) -> Client:
        now, ttl_s = self._wall_clock(), self._policy.client_ttl_s
        end = None if ttl_s is None else now + ttl_s
        scopes = self._rules.registrable_scopes
        if stored is None:
            return Client(
                client_id=client_id,
                client_name=kept.name,
                secret_hash="",
                scopes=scopes,
                created_at=now,
                expires_at=end,
                generation=int(now * 1_000_000),
                metadata=kept.metadata.stored(),
            )
        metadata = keep_internal(kept.metadata, metadata_of(stored)).stored()
        return replace(
            stored, client_name=kept.name, scopes=scopes, metadata=metadata, expires_at=end
        )

    async def _read(self, client_id: str, source: str) -> _Kept:
        kept = self._cache.get(client_id)
        if kept is not None:
            return kept
        task = self._fetching.get(client_id)
        if task is None:
            problem = self._check_url(client_id) or self._count(source)
            if problem:
                return _Kept("", ClientMetadata(), 0.0, problem)
            task = asyncio.create_task(self._load(client_id))
            self._fetching[client_id] = task
            task.add_done_callback(lambda _: self._fetching.pop(client_id, None))
        return await asyncio.shield(task)

    async def _load(self, client_id: str) -> _Kept:
        try:
            kept = self._parse(client_id, await self._fetch(client_id))
        except FetchError as error:
            kept = _failed(f"it can't be fetched: {error}")
        except OAuthError as error:
            kept = _failed(error.description)
        self._cache[client_id] = kept
        return kept

    def _parse(self, client_id: str, document: FetchedDocument) -> _Kept:
        """Raises `InvalidClientMetadataError` and `InvalidRedirectUriError`."""
        members = dict(document.members)
        if members.get("client_id") != client_id:
            raise InvalidClientMetadataError("client_id in it is another one.")
        method = members.setdefault("token_endpoint_auth_method", "none")
        if method not in _METHODS or "client_secret" in members:
            raise InvalidClientMetadataError(
                "token_endpoint_auth_method must be none or private_key_jwt: what is public holds "
                "no secret."
            )
        metadata = read_registration(members, None, self._rules).metadata
        metadata = replace(
            metadata,
            skip_consent=False,
            audiences=(),
            access_token_format=None,
            registered_by="open",
        )
        check_metadata(metadata, self._rules, is_trusted=False)
        name = members.get("client_name")
        if not isinstance(name, str) or not is_name(name):
            name = document_host(client_id)
        age_s = DEFAULT_AGE_S if document.max_age_s is None else document.max_age_s
        return _Kept(name, metadata, min(max(age_s, MIN_AGE_S), MAX_AGE_S))

    def _check_url(self, client_id: str) -> str:
        """Return what is wrong with a URL, or nothing."""
        found = _URL.fullmatch(client_id) if len(client_id) <= MAX_ID_CHARS else None
        if found is None or "#" in client_id or {".", ".."} & set(found[1].split("/")):
            return (
                f"the URL must be https with a path, in canonical form, of at most {MAX_ID_CHARS} "
                "characters"
            )
        hosts = self._policy.client_document_hosts
        if hosts and not is_known_host(document_host(client_id).partition(":")[0], hosts):
            return "its host is not one that the operator allows"
        return ""

    def _count(self, source: str) -> str:
        policy = self._policy
        demands = (
            Demand(f"document:{source_of(source)}", "", policy.registration_rate_limit),
            Demand("document", "", policy.total_registration_rate_limit),
        )
        return "" if self._rates.acquire(demands).is_allowed else "too many were fetched; try later"


def document_host(client_id: str) -> str:
    """The host of a client id that is a URL, for display; empty for any other."""
    return urlsplit(client_id).netloc if client_id.startswith("https://") else ""


def _failed(problem: str) -> _Kept:
    return _Kept("", ClientMetadata(), FAILURE_AGE_S, problem)
