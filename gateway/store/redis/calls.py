"""Calls of the Redis store, measured: what all parts of it share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, Unpack

from gateway.oauth.models import Change, StoreUnavailableError
from gateway.store.link import Connection
from gateway.store.operations import Reports, StoreOperations
from gateway.store.redis.link import RedisLink, call_script
from gateway.store.redis.scripts import Script
from gateway.store.redis.values import Keys

Result = TypeVar("Result")


class RedisCalls(StoreOperations):
    """Calls of the store, measured."""

    def __init__(self, link: RedisLink, **reports: Unpack[Reports]) -> None:
        """`reports` are those of `StoreOperations`."""
        super().__init__(**reports)
        self.link = link
        self.keys = Keys(link.url.prefix)

    async def run(self, operation: str, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do `work` on the connection. Raises `StoreUnavailableError`."""
        return await self.measure(operation, self.link.run(work))

    async def call(self, operation: str, script: Script, *arguments: Any) -> Any:
        """Run a script on the provider's keys."""
        keys = [self.keys.root]
        return await self.run(operation, lambda redis: call_script(redis, script, keys, *arguments))

    async def change(
        self, operation: str, script: Script, change: Change | None, *arguments: Any
    ) -> Any:
        """Run a script that announces `change`, if any, where its result is not nil or 0."""
        if change is None:
            return await self.call(operation, script, *arguments)
        with self.announced(change):
            result = await self.call(operation, script, *arguments)
        if result:
            self.on_change(change)
        return result

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
