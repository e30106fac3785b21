"""A bound on the reads of tokens that are under way at once.

Unknown tokens cost a read each, and any client can make them up. However many
come, the store meets only so many at a time; a caller that cannot be served soon is asked to come
again (503), rather than let into a queue without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.oauth.models import (
    AccessToken,
    ApiKeyReader,
    StoreUnavailableError,
    TokenReader,
)

AT_ONCE = 64
WAIT_S = 0.5
MAX_WAITING = 4096


class BoundedReads:
    """Reads tokens from a store, so many at once."""

    def __init__(
        self,
        store: TokenReader,
        *,
        at_once: int = AT_ONCE,
        wait_s: float = WAIT_S,
        max_waiting: int = MAX_WAITING,
        on_found: Callable[[AccessToken], None] = lambda token: None,
        api_keys: ApiKeyReader | None = None,
    ) -> None:
        """`on_found` is called with each token that was found."""
        self._store = store
        self._at_once = at_once
        self._slots = asyncio.Semaphore(at_once)
        self._wait_s = wait_s
        self._max_waiting = max_waiting
        self._waiting = 0
        self._on_found = on_found
        self._api_keys = api_keys

    async def get_token(self, digest: bytes) -> AccessToken | None:
        """See `TokenStore`. Raises `StoreUnavailableError` also where too many ask."""
        return await self._read(self._store.get_token, digest)

    async def get_api_key(self, digest: bytes) -> AccessToken | None:
        """See `ApiKeyReader`."""
        keys = self._api_keys
        return None if keys is None else await self._read(keys.get_api_key, digest)

    async def _read(
        self, read: Callable[[bytes], Awaitable[AccessToken | None]], digest: bytes
    ) -> AccessToken | None:
        slots = self._slots
        await self._take_slot(slots)
        try:
            token = await read(digest)
        finally:
            slots.release()
        if token is not None:
            self._on_found(token)
        return token

    def reconfigure(self, *, at_once: int) -> None:
        """Let so many read at once from now on; those under way come on top of them."""
        if at_once != self._at_once:
            self._at_once = at_once
            self._slots = asyncio.Semaphore(at_once)

    async def _take_slot(self, slots: asyncio.Semaphore) -> None:
        if not slots.locked():
            await slots.acquire()  # does not wait
            return
        if self._waiting >= self._max_waiting:
            raise StoreUnavailableError("too many tokens are being looked up")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await slots.acquire()
        except TimeoutError:
            raise StoreUnavailableError("too many tokens are being looked up") from None
        finally:
            self._waiting -= 1
