"""Bearer token validation (RFC 6750): the Authorization header, the cache, the verdict.

Second step of the request path. A look-up has three responses, not two: the token is
valid, it is not (`InvalidTokenError`), or nobody can tell because the store is down
(`StoreUnavailableError`). Only the first two are ever remembered.

What is cached is what the token *is*; what it *may do* (`Access.check`) is asked again
on every hit, so a verdict for one route is never reused on another.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from typing import Literal

from cachetools import TTLCache

from gateway.metrics import Metrics
from gateway.oauth.access import Access, CachedToken, constraint_of
from gateway.oauth.errors import (
    InvalidTokenError,
    MalformedTokenError,
    MissingTokenError,
)
from gateway.oauth.external_issuers import ExternalTokens
from gateway.oauth.models import (
    AccessToken,
    Change,
    ClientChange,
    Clock,
    StoreUnavailableError,
    TokenReader,
    digest_token,
)

__all__ = ["Access", "BearerValidator", "CachedToken", "read_bearer"]

SECOND_CHANCES = 32
"""How many used entries one insertion may spare, so that its cost is bounded where all were."""

_PAST = float("-inf")

# RFC 6750 section 2.1: the scheme, at least one space, b68token.
_BEARER = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)
_BEARER_SCHEME = re.compile(rb"bearer(?: |$)", re.IGNORECASE)


def read_bearer(authorization: Sequence[bytes]) -> str:
    """The token in the values of the Authorization header fields.

    Raises `MissingTokenError` where there is none (also for another scheme), and
    `MalformedTokenError` for more than one header or a token that can't be one.
    """
    if not authorization:
        raise MissingTokenError
    if len(authorization) > 1:
        # Picking either one would let two readers of the same request disagree.
        raise MalformedTokenError("More than one Authorization header.")
    value = authorization[0]
    if match := _BEARER.fullmatch(value):
        return match[1].decode("ascii")
    if _BEARER_SCHEME.match(value):
        raise MalformedTokenError("The bearer token is malformed.")
    raise MissingTokenError


class BearerValidator:
    """Tokens in memory in front of the store, one store read per digest at a time.

    Entries end on the monotonic clock, so a jump of the wall clock neither prolongs nor
    ends what is cached. The cache is bounded; where it is full, entries that were not
    used since the last sweep go first (second chance), and tokens that don't exist have
    a cache of their own, so a flood of them can't push a good one out.
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
        external: ExternalTokens | None = None,
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
        self._external = external
        self._clock = clock
        self._wall_clock = wall_clock
        self._lookups = metrics.data_plane.token_cache_lookups
        metrics.data_plane.token_cache_entries = lambda: len(self._entries)

        self._entries: OrderedDict[bytes, CachedToken] = OrderedDict()
        self._by_client: defaultdict[str, set[bytes]] = defaultdict(set)
        self._refused: TTLCache[bytes, Literal["unknown", "expired"]] = TTLCache(
            max(1, max_entries), negative_ttl_s, timer=clock
        )
        self._reads: dict[bytes, asyncio.Task[CachedToken]] = {}
        self._changes_seen = 0

    def __len__(self) -> int:
        return len(self._entries)

    def cached(self, access_token: str) -> CachedToken | None:
        """The token if it is in the cache and fresh. Never waits: the hot path."""
        entry = self._entries.get(sha256(access_token.encode()).digest())
        if entry is None or self._clock() >= entry.fresh_until:
            return None
        entry.was_used = True
        self._lookups["hit"] += 1
        return entry

    def is_fresh(self, entry: CachedToken) -> bool:
        """Whether an entry that was found before is still as good as one found now: the
        same hit, for a caller who knows that the token is the same."""
        if self._clock() >= entry.fresh_until:
            return False
        entry.was_used = True
        self._lookups["hit"] += 1
        return True

    async def lookup(self, access_token: str) -> CachedToken:
        """The token, from the cache or the store.

        Raises `InvalidTokenError` and `StoreUnavailableError`.
        """
        if entry := self.cached(access_token):
            return entry
        digest = digest_token(access_token)
        if refusal := self._refused.get(digest):
            self._lookups["negative_hit"] += 1
            raise InvalidTokenError(reason=refusal)
        self._lookups["miss"] += 1
        read = self._reads.get(digest)
        if read is None:
            read = asyncio.create_task(self._read(digest, access_token))
            self._reads[digest] = read
            read.add_done_callback(lambda done: self._finish_read(digest, done))
        # The read belongs to nobody: a caller that goes away must not fail the others.
        return await asyncio.shield(read)

    async def _read(self, digest: bytes, access_token: str) -> CachedToken:
        changes_seen = self._changes_seen
        try:
            token = await self._find(digest, access_token)
        except StoreUnavailableError:
            if stale := self._find_stale(digest):
                return stale
            raise
        remaining_s = 0.0 if token is None else token.expires_at - self._wall_clock()
        if token is None or remaining_s <= 0:
            refusal: Literal["unknown", "expired"] = "unknown" if token is None else "expired"
            self._refused[digest] = refusal
            if stale := self._entries.pop(digest, None):
                self._unlink(digest, stale)
            raise InvalidTokenError(reason=refusal)
        fresh_until = self._clock() + min(self._ttl_s, remaining_s)
        constraint = constraint_of(token, self._audience)
        entry = CachedToken(token, fresh_until, self._render_identity(token), constraint)
        # A revocation that arrived during the read may be about this very token.
        if changes_seen == self._changes_seen:
            self._keep(digest, entry)
        else:
            entry.fresh_until = _PAST
        return entry

    async def _find(self, digest: bytes, access_token: str) -> AccessToken | None:
        """The token, be it ours or another's; our own, JWTs included, are all in the store."""
        external = self._external
        if external is not None and external.is_certainly_external(access_token):
            return await external.find(access_token)
        token = await self._store.get_token(digest)
        if token is None and external is not None:
            token = await external.find(access_token)
        return token

    def _find_stale(self, digest: bytes) -> CachedToken | None:
        entry = self._entries.get(digest)
        if entry is None or self._clock() >= entry.fresh_until + self._stale_s:
            return None
        if self._wall_clock() >= entry.token.expires_at:
            return None
        entry.was_used = True
        self._lookups["stale"] += 1
        return entry

    def _finish_read(self, digest: bytes, read: asyncio.Task[CachedToken]) -> None:
        del self._reads[digest]
        if not read.cancelled():
            # Every waiter may have gone away; the error is then nobody's to retrieve.
            read.exception()

    def _keep(self, digest: bytes, entry: CachedToken) -> None:
        entries = self._entries
        if stale := entries.get(digest):
            stale.fresh_until = _PAST
        else:
            chances = SECOND_CHANCES
            while len(entries) >= self._max_entries:
                oldest, candidate = entries.popitem(last=False)
                if chances and candidate.was_used and self._clock() < candidate.fresh_until:
                    chances -= 1
                    candidate.was_used = False
                    entries[oldest] = candidate
                else:
                    self._unlink(oldest, candidate)
        entries[digest] = entry
        self._by_client[entry.token.client_id].add(digest)

    def _unlink(self, digest: bytes, entry: CachedToken) -> None:
        entry.fresh_until = _PAST
        of_client = self._by_client[entry.token.client_id]
        of_client.discard(digest)
        if not of_client:
            del self._by_client[entry.token.client_id]

    def reconfigure(
        self,
        *,
        max_entries: int,
        ttl_s: float,
        negative_ttl_s: float,
        stale_s: float,
        audience: Collection[str],
        external: ExternalTokens | None,
        is_trust_changed: bool,
    ) -> None:
        """Go by other rules from now on; `is_trust_changed` where a token that was believed by
        the old ones might not be by these, or be for something else."""
        self._max_entries, self._ttl_s, self._stale_s = max_entries, ttl_s, stale_s
        self._audience, self._external = audience, external
        if is_trust_changed:
            self.forget_all()
        self._refused = TTLCache(max(1, max_entries), negative_ttl_s, timer=self._clock)
        latest = self._clock() + ttl_s
        for entry in self._entries.values():
            entry.fresh_until = min(entry.fresh_until, latest)
        while len(self._entries) > max_entries:
            self._unlink(*self._entries.popitem(last=False))

    def forget(self, change: Change) -> None:
        """Drop what `change` made invalid, here or in another process."""
        self._changes_seen += 1
        if isinstance(change, ClientChange):
            for digest in self._by_client.pop(change.client_id, ()):
                self._entries.pop(digest).fresh_until = _PAST
        elif entry := self._entries.pop(change.digest, None):
            self._unlink(change.digest, entry)

    def forget_all(self) -> None:
        """Drop everything: some changes were missed."""
        self._changes_seen += 1
        for entry in self._entries.values():
            entry.fresh_until = _PAST
        self._entries.clear()
        self._by_client.clear()
