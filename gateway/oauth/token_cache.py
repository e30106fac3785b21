"""The token cache of a process, in front of the store.

A look-up has three results, not two: the token is valid, it is not (`InvalidTokenError`), or
that is unknown because the store is unavailable (`StoreUnavailableError`). Only the first two
are ever remembered.

What is cached is what the token *is*; what it *may do* (`Access.check`) is decided again
on every hit, so a verdict for one route is never reused on another.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from typing import Literal, TypeAlias

from cachetools import FIFOCache

from gateway.background import RetryPauses
from gateway.metrics import Metrics
from gateway.oauth.access import CachedToken, Cohort, constraint_of
from gateway.oauth.api_keys import has_checksum, is_api_key
from gateway.oauth.claim_rules import NO_CLAIMS, Claims
from gateway.oauth.errors import InvalidTokenError, OAuthError
from gateway.oauth.external_issuers import ExternalTokens
from gateway.oauth.external_issuers.jwt import JwtIssuers
from gateway.oauth.models import (
    AccessToken,
    ApiKeyReader,
    Change,
    ClientChange,
    Clock,
    StoreError,
    StoreUnavailableError,
    TokenReader,
    digest_token,
)

SECOND_CHANCES = 32
"""How many used entries one insertion may spare, so that its cost is bounded where all were."""
MAX_EVICTIONS = 64
"""How many entries one insertion removes at most, where there are too many for a new limit, or some
that were dropped."""

_PAST = float("-inf")
_DROPPED = -1
_FORESEEN = (OAuthError, StoreError)
"""What a read raises for its callers; anything else is a defect, and logged."""


_Reason: TypeAlias = Literal["unknown", "expired"]
_Refusal: TypeAlias = tuple[float, _Reason]
"""When a token was found not to be valid, and why. A plain tuple: the garbage collector does not
look at those of numbers and texts again, of which made-up tokens can make very many."""
_Dropped: TypeAlias = "set[bytes] | OrderedDict[bytes, CachedToken] | FIFOCache[bytes, _Refusal]"


class TokenCache:
    """Tokens in memory in front of the store, one store read per digest at a time.

    Entries end on the monotonic clock, so that a jump of the wall clock prolongs nothing, and when
    the wall clock says that the token has expired. The cache is bounded; where it is full, entries
    that were not used since the last sweep go first (second chance), and tokens that don't exist
    have a cache of their own, so a flood of them can't push a good one out.

    Nothing here takes a time that grows with what is cached: tokens of a client, or all, are
    dropped by a change of their generation, and removed bit by bit as others come in.
    """

    def __init__(
        self,
        store: TokenReader,
        metrics: Metrics,
        *,
        max_entries: int = 100_000,
        ttl_s: float = 60.0,
        negative_ttl_s: float = 5.0,
        stale_s: float = 0.0,
        render_identity: Callable[[AccessToken], bytes] = lambda token: b"",
        audience: Collection[str] = (),
        view_claims: Callable[[AccessToken], Claims] = lambda token: NO_CLAIMS,
        external: ExternalTokens | None = None,
        api_keys: ApiKeyReader | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._stale_s = stale_s
        """How long after `ttl_s` a token is still believed where the store does not respond."""
        self._render_identity = render_identity
        self._audience = audience
        self._view_claims = view_claims
        self._external = external
        self._api_keys = api_keys
        self._clock = clock
        self._wall_clock = wall_clock
        self._lookups = metrics.data_plane.token_cache_lookups
        metrics.data_plane.token_cache_entries = lambda: len(self._entries)

        self._entries: OrderedDict[bytes, CachedToken] = OrderedDict()
        self._generation = 0
        self._by_client: dict[str, Cohort] = {}
        self._dropped: deque[_Dropped] = deque()
        """What is still to be removed, or only to be freed."""
        self._negative_ttl_s = negative_ttl_s
        self._refused: FIFOCache[bytes, _Refusal] = FIFOCache(max(1, max_entries))
        self._reads: dict[bytes, asyncio.Task[CachedToken | _Reason]] = {}
        self._changes_seen = 0
        self._failed_reads = RetryPauses("reads of tokens")

    @property
    def jwt_issuers(self) -> JwtIssuers | None:
        """The issuers whose JWTs are verified."""
        return None if self._external is None else self._external.jwt_issuers

    def __len__(self) -> int:
        return len(self._entries)

    def cached(self, access_token: str) -> CachedToken | None:
        """The token if it is in the cache and fresh. Never waits: the hot path."""
        return self.cached_digest(sha256(access_token.encode()).digest())

    def cached_digest(self, digest: bytes) -> CachedToken | None:
        """The same by the SHA-256 digest of a token."""
        entry = self._entries.get(digest)
        return entry if entry is not None and self.is_fresh(entry) else None

    def is_fresh(self, entry: CachedToken) -> bool:
        """Whether an entry that was found before is still as good as one found now: the
        same hit, for a caller who knows that the token is the same."""
        if not self._is_current(entry):
            return False
        entry.was_used = True
        self._lookups["hit"] += 1
        return True

    def is_current(self, entry: CachedToken) -> bool:
        """Whether an entry is still valid here, without counting as its use."""
        return self._is_current(entry)

    async def lookup(self, access_token: str) -> CachedToken:
        """The token or API key, from the cache or the store.

        Raises `InvalidTokenError` and `StoreUnavailableError`.
        """
        digest = digest_token(access_token)
        return await self.lookup_digest(digest, lambda: self._find(digest, access_token))

    async def lookup_token(self, access_token: str) -> CachedToken:
        """The same, but for API keys, which are no tokens: nothing is issued for them, and no other
        resource accepts them."""
        if is_api_key(access_token):
            raise InvalidTokenError
        return await self.lookup(access_token)

    async def lookup_digest(
        self, digest: bytes, find: Callable[[], Awaitable[AccessToken | None]]
    ) -> CachedToken:
        """Return what is cached by a digest, or else what `find` finds: valid, invalid (None), or
        unknown (`StoreUnavailableError`). Of several callers, one finds it for all.

        Raises `InvalidTokenError`, `StoreUnavailableError`, and what `find` raises.
        """
        if entry := self.cached_digest(digest):
            return entry
        refusal = self._refused.get(digest)
        if refusal is not None and self._clock() - refusal[0] < self._negative_ttl_s:
            self._lookups["negative_hit"] += 1
            raise InvalidTokenError(reason=refusal[1])
        self._lookups["miss"] += 1
        read = self._reads.get(digest)
        if read is None:
            read = asyncio.create_task(self._read(digest, find))
            self._reads[digest] = read
            read.add_done_callback(lambda done: self._finish_read(digest, done))
        # The read belongs to no caller: one that goes away must not fail the others.
        found = await asyncio.shield(read)
        if isinstance(found, str):
            # Each caller has an error of its own, which names what its route needs.
            raise InvalidTokenError(reason=found)
        return found

    async def _read(
        self, digest: bytes, find: Callable[[], Awaitable[AccessToken | None]]
    ) -> CachedToken | _Reason:
        """Return what is found, or why it is not valid."""
        changes_seen = self._changes_seen
        try:
            token = await find()
        except StoreUnavailableError:
            if stale := self._find_stale(digest):
                return stale
            raise
        remaining_s = 0.0 if token is None else token.expires_at - self._wall_clock()
        if token is None or remaining_s <= 0:
            reason: _Reason = "unknown" if token is None else "expired"
            self._refused[digest] = self._clock(), reason
            if stale := self._entries.pop(digest, None):
                self._unlink(digest, stale)
            return reason
        now = self._clock()
        identity, constraint = self._render_identity(token), constraint_of(token, self._audience)
        claims = self._view_claims(token)
        # A revocation that arrived during the read may be about this very token.
        if changes_seen != self._changes_seen:
            return CachedToken(token, _PAST, identity, constraint, claims=claims)
        cohort = self._by_client.get(token.client_id)
        if cohort is None:
            cohort = self._by_client[token.client_id] = Cohort(self._generation)
        entry = CachedToken(
            token,
            now + remaining_s,
            identity,
            constraint,
            read_at=now,
            cohort=cohort,
            claims=claims,
        )
        self._keep(digest, entry)
        return entry

    async def _find(self, digest: bytes, access_token: str) -> AccessToken | None:
        """The token, be it ours or another's; our own, JWTs included, are all in the store."""
        if is_api_key(access_token):
            if self._api_keys is None or not has_checksum(access_token):
                return None
            return await self._api_keys.get_api_key(digest)
        external = self._external
        if external is not None and external.is_certainly_external(access_token):
            return await external.find(access_token)
        token = await self._store.get_token(digest)
        if token is None and external is not None:
            token = await external.find(access_token)
        return token

    def _find_stale(self, digest: bytes) -> CachedToken | None:
        entry = self._entries.get(digest)
        if entry is None or entry.cohort.generation != self._generation:
            return None
        if self._clock() - entry.read_at >= self._ttl_s + self._stale_s:
            return None
        if self._wall_clock() >= entry.token.expires_at:
            return None
        entry.was_used = True
        self._lookups["stale"] += 1
        return entry

    def _finish_read(self, digest: bytes, read: asyncio.Task[CachedToken | _Reason]) -> None:
        # After an invalidation, the entry may be that of a later read.
        if self._reads.get(digest) is read:
            del self._reads[digest]
        if not read.cancelled():
            # Every waiter may have gone away; then nothing else retrieves the error.
            error = read.exception()
            if isinstance(error, Exception) and not isinstance(error, _FORESEEN):
                self._failed_reads.fail(error)

    def _keep(self, digest: bytes, entry: CachedToken) -> None:
        entries = self._entries
        self._remove_dropped(MAX_EVICTIONS)
        if stale := entries.get(digest):
            self._unlink(digest, stale)
        else:
            chances = SECOND_CHANCES
            for _ in range(SECOND_CHANCES + MAX_EVICTIONS):
                if len(entries) < self._max_entries:
                    break
                oldest, candidate = entries.popitem(last=False)
                if chances and candidate.was_used and self._is_current(candidate):
                    chances -= 1
                    candidate.was_used = False
                    entries[oldest] = candidate
                else:
                    self._unlink(oldest, candidate)
        entries[digest] = entry
        self._by_client[entry.token.client_id] = entry.cohort  # it may have been left empty
        entry.cohort.digests.add(digest)

    def _is_current(self, entry: CachedToken) -> bool:
        now = self._clock()
        return (
            now < entry.valid_until
            # The wall clock may have jumped beyond the end of the token.
            and self._wall_clock() < entry.expires_at
            and now - entry.read_at < self._ttl_s
            and entry.cohort.generation == self._generation
        )

    def _unlink(self, digest: bytes, entry: CachedToken) -> None:
        entry.valid_until = _PAST
        cohort = entry.cohort
        cohort.digests.discard(digest)
        if not cohort.digests and self._by_client.get(entry.token.client_id) is cohort:
            del self._by_client[entry.token.client_id]

    def _remove_dropped(self, count: int) -> None:
        """Remove up to `count` of what was dropped."""
        while self._dropped and count:
            dropped = self._dropped[0]
            while dropped and count:
                count -= 1
                if not isinstance(dropped, set):
                    dropped.popitem()
                    continue
                digest = dropped.pop()
                entry = self._entries.get(digest)
                if entry is not None and entry.cohort.generation != self._generation:
                    del self._entries[digest]
            if not dropped:
                self._dropped.popleft()

    def reconfigure(
        self,
        *,
        max_entries: int,
        ttl_s: float,
        negative_ttl_s: float,
        stale_s: float,
        audience: Collection[str],
        view_claims: Callable[[AccessToken], Claims],
        external: ExternalTokens | None,
        is_trust_changed: bool,
    ) -> None:
        """Go by other rules from now on; `is_trust_changed` where a token that was believed by
        the old ones might not be by these, be for something else, or have other claims."""
        self._max_entries, self._ttl_s, self._stale_s = max_entries, ttl_s, stale_s
        self._audience, self._external = audience, external
        self._view_claims = view_claims
        if is_trust_changed:
            self.forget_all()
        self._negative_ttl_s = negative_ttl_s
        self._dropped.append(self._refused)
        self._refused = FIFOCache(max(1, max_entries))

    def audience_of(self, token: AccessToken) -> frozenset[str]:
        """Return the resources that a token is for; none where it is for the gateway as a whole."""
        constraint = constraint_of(token, self._audience)
        return frozenset() if constraint is None else frozenset(constraint.audience)

    def forget(self, change: Change) -> None:
        """Drop what `change` made invalid, here or in another process."""
        self._begin_change()
        if isinstance(change, ClientChange):
            cohort = self._by_client.pop(change.client_id, None)
            if cohort is not None:
                cohort.generation = _DROPPED
                self._dropped.append(cohort.digests)
        elif entry := self._entries.pop(change.digest, None):
            self._unlink(change.digest, entry)

    def forget_all(self) -> None:
        """Drop everything: some changes were missed."""
        self._begin_change()
        self._generation += 1
        # Freeing very many objects takes its time, too.
        self._dropped.append(self._entries)
        self._entries, self._by_client = OrderedDict(), {}

    def _begin_change(self) -> None:
        """Prevent callers from joining a read that began before a change and may not know of it."""
        self._changes_seen += 1
        self._reads = {}
