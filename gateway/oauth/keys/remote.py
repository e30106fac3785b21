"""Keys of other parties, by the URL of their JWK set or by their issuer: cached, refreshed ahead of
need, and never fetched twice at once.

A key set that cannot be fetched says nothing about any token: the response is then 503, like that
of a store that is down. Keys once fetched are used until they are `MAX_AGE_S` old.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.oauth.issuer_metadata import FetchError, FetchJson, discover, read_endpoint
from gateway.oauth.jose import Jwt, SignatureError, read_jwt, read_usable_keys, verify_jwt
from gateway.oauth.models import Clock, StoreUnavailableError

if TYPE_CHECKING:
    from joserfc.jwk import Key

REFRESH_AFTER_S = 600.0
"""The age at which keys are fetched again, while the old ones are still used."""
MAX_AGE_S = 86400.0
"""The age at which keys are no longer used."""
RETRY_AFTER_S = 5.0
"""How long a source that failed, or that lacked a key, is left alone."""
MAX_SOURCES = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyLocation:
    """Locates the keys of an issuer."""

    issuer: str
    jwks_uri: str | None = None
    """None where the metadata of the issuer names it."""
    ca: str | None = None
    """File with the authorities that vouch for its server; None for those of the system."""
    token_file: str | None = None
    """File with the bearer token that its server asks for."""

    def __str__(self) -> str:
        return self.jwks_uri or f"the keys of {self.issuer}"


KeySource = str | KeyLocation
"""The URL of a JWK set, or where that of an issuer is."""
FetchFrom = Callable[[KeyLocation], FetchJson]
"""Returns what fetches documents of an issuer, as its location says."""


class IssuerUnavailableError(StoreUnavailableError):
    """An issuer that is needed to validate a token does not respond. The text says how."""

    code = "issuer_unavailable"

    def __init__(self, reason: str, *, who: str = "The issuer of the token") -> None:
        super().__init__(f"{who}: {reason}")
        self.who = who
        self.why = reason


class RemoteKeys:
    """The keys of other parties."""

    def __init__(
        self,
        fetch: FetchJson,
        *,
        fetch_from: FetchFrom | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._fetch_from = fetch_from or (lambda location: fetch)
        self._clock = clock
        self._sources: OrderedDict[KeySource, _Source] = OrderedDict()

    async def verify(self, where: KeySource, token: str, algorithms: Collection[str]) -> Jwt:
        """Return the parts of a JWT that one of the keys of a JWK set signed.

        Where none did, the set is fetched again, though not too often: the issuer may have
        replaced its key, and a key without an id does not show that.

        Raises `JwtError` and `IssuerUnavailableError`.
        """
        key_id = read_jwt(token).key_id
        keys = await self.keys(where, key_id=key_id)
        try:
            return verify_jwt(token, keys, algorithms)
        except SignatureError:
            following = await self.keys(where, key_id=key_id, unlike=keys)
            if following is keys:
                raise
            return verify_jwt(token, following, algorithms)

    async def keys(
        self, where: KeySource, *, key_id: str | None = None, unlike: Sequence[Key] | None = None
    ) -> Sequence[Key]:
        """The keys of a JWK set; fetched again, though not too often, where none has `key_id`, or
        where they are still `unlike`.

        Raises `IssuerUnavailableError` where they cannot be fetched.
        """
        source = self._source(where)
        now = self._clock()
        is_usable = source.fetched_at is not None and now - source.fetched_at < MAX_AGE_S
        lacks_key = key_id is not None and all(key.kid not in {key_id, None} for key in source.keys)
        is_wanting = lacks_key or source.keys is unlike
        if not is_usable or (is_wanting and now - source.tried_at >= RETRY_AFTER_S):
            await self._refresh(where, source)
        elif source.needs_refresh(now):
            self._start_refresh(where, source)
        return source.keys

    def watch(self, places: Collection[KeySource]) -> None:
        """Have `refresh` fetch these sets, and no others, before a request needs them."""
        for where in places:
            self._source(where)
        for where, source in self._sources.items():
            source.is_watched = where in places

    async def refresh(self) -> None:
        """Fetch again what is getting old, so that no request has to wait for it."""
        now = self._clock()
        due = [found for found in self._sources.items() if found[1].needs_refresh(now)]
        await asyncio.gather(
            *(self._start_refresh(where, source) for where, source in due), return_exceptions=True
        )

    def _source(self, where: KeySource) -> _Source:
        source = self._sources.get(where)
        if source is None:
            source = self._sources[where] = _Source()
            while len(self._sources) > MAX_SOURCES:
                oldest = next(key for key, kept in self._sources.items() if not kept.is_watched)
                del self._sources[oldest]
        self._sources.move_to_end(where)
        return source

    async def _refresh(self, where: KeySource, source: _Source) -> None:
        if source.task is None and self._clock() - source.tried_at < RETRY_AFTER_S:
            raise IssuerUnavailableError(f"{source.problem} (not tried again yet)")
        # The fetch belongs to no caller: one that goes away must not fail the others.
        await asyncio.shield(self._start_refresh(where, source))

    def _start_refresh(self, where: KeySource, source: _Source) -> asyncio.Task[None]:
        if source.task is None:
            source.task = asyncio.create_task(self._read(where, source))
            source.task.add_done_callback(source.finish)
        return source.task

    async def _read(self, where: KeySource, source: _Source) -> None:
        source.tried_at = self._clock()
        try:
            keys = read_usable_keys(await self._fetch_set(where))
        except Exception as error:
            is_foreseen = isinstance(error, FetchError)
            cause = str(error) if is_foreseen else type(error).__name__
            problem = f"failed to fetch {where}: {cause}"
            if source.problem != problem:
                _log.warning("JWKS: %s", problem, exc_info=None if is_foreseen else error)
            source.problem = problem
            if source.fetched_at is None or self._clock() - source.fetched_at >= MAX_AGE_S:
                raise IssuerUnavailableError(problem) from None
            return
        source.problem = ""
        if not keys and source.keys:
            return  # An empty set is more likely a fault over there than the end of all keys.
        source.keys = keys
        source.fetched_at = self._clock()

    async def _fetch_set(self, where: KeySource) -> object:
        """Fetch a JWK set. Where it is looked up for each fetch: that is rare, and it may have
        moved. Raises `FetchError`."""
        if isinstance(where, str):
            return await self._fetch(where)
        fetch = self._fetch_from(where)
        url = where.jwks_uri
        if url is None:
            url = read_endpoint(await discover(fetch, where.issuer), "jwks_uri")
        return await fetch(url)


class _Source:
    __slots__ = ("fetched_at", "is_watched", "keys", "problem", "task", "tried_at")

    def __init__(self) -> None:
        self.keys: Sequence[Key] = ()
        self.fetched_at: float | None = None
        self.tried_at = float("-inf")
        self.task: asyncio.Task[None] | None = None
        self.problem = ""
        """Why it could not be fetched last; empty where it could."""
        self.is_watched = False

    def needs_refresh(self, now: float) -> bool:
        if now - self.tried_at < RETRY_AFTER_S:
            return False
        if self.fetched_at is None:
            return self.is_watched
        return now - self.fetched_at >= REFRESH_AFTER_S

    def finish(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled():
            # Every waiter may have gone away; then nothing retrieves the error.
            task.exception()
