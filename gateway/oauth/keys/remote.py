"""Keys of other parties, by the URL of their JWK set: cached, refreshed ahead of need, and never
fetched twice at once.

A key set that cannot be fetched says nothing about any token: the response is then 503, like that
of a store that is down. Keys once fetched are used until they are `MAX_AGE_S` old.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING

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

FetchJson = Callable[[str], Awaitable[object]]
"""Gets a JSON document. Raises `FetchError`."""


_log = logging.getLogger(__name__)


class FetchError(Exception):
    """A document cannot be fetched."""


class IssuerUnavailableError(StoreUnavailableError):
    """An issuer that is needed to validate a token does not respond. The text says how."""

    code = "issuer_unavailable"

    def __init__(self, reason: str, *, who: str = "The issuer of the token") -> None:
        super().__init__(f"{who}: {reason}")
        self.who = who
        self.why = reason


class RemoteKeys:
    """The keys behind URLs."""

    def __init__(self, fetch: FetchJson, *, clock: Clock = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    async def verify(self, url: str, token: str, algorithms: Collection[str]) -> Jwt:
        """Return the parts of a JWT that one of the keys of a JWK set signed.

        Where none did, the set is fetched again, though not too often: the issuer may have
        replaced its key, and a key without an id does not show that.

        Raises `JwtError` and `IssuerUnavailableError`.
        """
        key_id = read_jwt(token).key_id
        keys = await self.keys(url, key_id=key_id)
        try:
            return verify_jwt(token, keys, algorithms)
        except SignatureError:
            following = await self.keys(url, key_id=key_id, unlike=keys)
            if following is keys:
                raise
            return verify_jwt(token, following, algorithms)

    async def keys(
        self, url: str, *, key_id: str | None = None, unlike: Sequence[Key] | None = None
    ) -> Sequence[Key]:
        """The keys of a JWK set; fetched again, though not too often, where none has `key_id`, or
        where they are still `unlike`.

        Raises `IssuerUnavailableError` where they cannot be fetched.
        """
        source = self._source(url)
        now = self._clock()
        is_usable = source.fetched_at is not None and now - source.fetched_at < MAX_AGE_S
        lacks_key = key_id is not None and all(key.kid not in {key_id, None} for key in source.keys)
        is_wanting = lacks_key or source.keys is unlike
        if not is_usable or (is_wanting and now - source.tried_at >= RETRY_AFTER_S):
            await self._refresh(url, source)
        elif source.needs_refresh(now):
            self._start_refresh(url, source)
        return source.keys

    def watch(self, urls: Collection[str]) -> None:
        """Have `refresh` fetch these sets, and no others, before a request needs them."""
        for url in urls:
            self._source(url)
        for url, source in self._sources.items():
            source.is_watched = url in urls

    async def refresh(self) -> None:
        """Fetch again what is getting old, so that no request has to wait for it."""
        now = self._clock()
        due = [(url, source) for url, source in self._sources.items() if source.needs_refresh(now)]
        await asyncio.gather(
            *(self._start_refresh(url, source) for url, source in due), return_exceptions=True
        )

    def _source(self, url: str) -> _Source:
        source = self._sources.get(url)
        if source is None:
            source = self._sources[url] = _Source()
            while len(self._sources) > MAX_SOURCES:
                oldest = next(key for key, kept in self._sources.items() if not kept.is_watched)
                del self._sources[oldest]
        self._sources.move_to_end(url)
        return source

    async def _refresh(self, url: str, source: _Source) -> None:
        if source.task is None and self._clock() - source.tried_at < RETRY_AFTER_S:
            raise IssuerUnavailableError(f"{source.problem} (not tried again yet)")
        # The fetch belongs to no caller: one that goes away must not fail the others.
        await asyncio.shield(self._start_refresh(url, source))

    def _start_refresh(self, url: str, source: _Source) -> asyncio.Task[None]:
        if source.task is None:
            source.task = asyncio.create_task(self._read(url, source))
            source.task.add_done_callback(source.finish)
        return source.task

    async def _read(self, url: str, source: _Source) -> None:
        source.tried_at = self._clock()
        try:
            keys = read_usable_keys(await self._fetch(url))
        except Exception as error:
            is_foreseen = isinstance(error, FetchError)
            cause = str(error) if is_foreseen else type(error).__name__
            problem = f"failed to fetch {url}: {cause}"
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
