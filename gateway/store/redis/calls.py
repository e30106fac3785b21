"""Calls of the Redis store, measured: what all parts of it share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gateway.oauth.models import Change, Clock, StoreUnavailableError
from gateway.store.health import StoreHealth
from gateway.store.redis.link import Connection, RedisLink, call_script
from gateway.store.redis.scripts import Script
from gateway.store.redis.values import Keys

Result = TypeVar("Result")
Observe = Callable[[str, float], None]


class RedisCalls:
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
        self.link = link
        self.keys = Keys(link.url.prefix)
        self._observe = observe
        self.health = health or StoreHealth()
        self.on_change = on_change
        self.wall_clock = wall_clock

    async def run(self, operation: str, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do `work` on the connection. Raises `StoreUnavailableError`."""
        started = time.perf_counter()
        try:
            result = await self.link.run(work)
        except StoreUnavailableError as error:
            self.health.fail(operation, error)
            raise
        finally:
            self._observe(operation, time.perf_counter() - started)
        self.health.succeed(operation)
        return result

    async def call(self, operation: str, script: Script, *arguments: Any) -> Any:
        """Run a script on the provider's keys."""
        keys = [self.keys.root]
        return await self.run(operation, lambda redis: call_script(redis, script, keys, *arguments))

    @contextmanager
    def announced(self, change: Change) -> Iterator[None]:
        """Announce a change in this process also where the call for it failed: its response may be
        all that was lost."""
        try:
            yield
        except StoreUnavailableError:
            self.on_change(change)
            raise

    async def close(self) -> None:
        """Close every connection."""
        await self.link.close()
