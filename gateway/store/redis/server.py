"""The state that all parts of the Redis store share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gateway.oauth.models import Change, Clock, StoreUnavailableError
from gateway.store.health import StoreHealth
from gateway.store.redis import scripts
from gateway.store.redis.link import Connection, RedisLink, call_script
from gateway.store.redis.scripts import Script
from gateway.store.redis.values import Keys

REMOVE_BATCH = 500
Result = TypeVar("Result")
Observe = Callable[[str, float], None]


class RedisServer:
    """Calls of the store, measured."""

    def __init__(
        self,
        link: RedisLink,
        *,
        observe: Observe = lambda operation, seconds: None,
        health: StoreHealth | None = None,
        on_change: Callable[[Change], None] = lambda change: None,
        wall_clock: Clock = time.time,
    ) -> None:
        self._link = link
        self._keys = Keys(link.url.prefix)
        self._observe = observe
        self._health = health or StoreHealth()
        self._on_change = on_change
        self._wall_clock = wall_clock

    async def _run(self, operation: str, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        started = time.perf_counter()
        try:
            result = await self._link.run(work)
        except StoreUnavailableError as error:
            self._health.fail(operation, error)
            raise
        finally:
            self._observe(operation, time.perf_counter() - started)
        self._health.succeed(operation)
        return result

    async def _call(self, operation: str, script: Script, *arguments: Any) -> Any:
        """Run a script on the provider's keys."""
        keys = [self._keys.root]
        return await self._run(
            operation, lambda redis: call_script(redis, script, keys, *arguments)
        )

    @contextmanager
    def _announced(self, change: Change) -> Iterator[None]:
        """Announce a change in this process also where the call for it failed: its response may be
        all that was lost."""
        try:
            yield
        except StoreUnavailableError:
            self._on_change(change)
            raise

    @property
    def rejects_writes(self) -> bool:
        return self._health.rejects_writes

    async def _delete_records(self, owner: str, kind: str = "", *, leave: int = 0) -> int:
        """Delete records of an owner, of one kind or all, while there are more than `leave`: in
        batches, because Redis does nothing else meanwhile. Returns how many were live."""
        removed: int = 0
        while True:
            seen, live = await self._call(
                "delete_owned_records",
                scripts.DELETE_OWNED_RECORDS,
                *(self._wall_clock(), kind, owner, REMOVE_BATCH, leave),
            )
            removed += live
            if seen < REMOVE_BATCH:
                return removed

    async def ping(self) -> None:
        # A key that is there or not, rather than PING: only that shows whether the node which
        # matters responds.
        await self._run("ping", lambda redis: redis.exists(self._keys.root + "clients"))

    async def close(self) -> None:
        await self._link.close()
