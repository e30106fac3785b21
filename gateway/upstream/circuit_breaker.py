"""The circuit breaker of an upstream: how much of it may be used at once.

Names and defaults are Envoy's (`CircuitBreakers.Thresholds`). A connection carries one
request at a time, so `max_connections` bounds the requests that are under way; those that
find no connection wait for one, `max_pending_requests` at most, and what is above that is
refused at once rather than queued for longer than any client waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from gateway.http.errors import OverloadError
from gateway.metrics import Tally
from gateway.upstream.settings import CircuitBreaker

RETRY_AFTER = (("Retry-After", "1"),)
BREAKERS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")


def overload(breaker: str) -> OverloadError:
    """Return the error for a request above a limit."""
    return OverloadError(
        f"upstream_{breaker}", "The upstream is overloaded (circuit breaker open).", RETRY_AFTER
    )


class Breaker:
    """Counts what is used of an upstream, over all its endpoints."""

    def __init__(self, limits: CircuitBreaker, overflows: Tally) -> None:
        self.limits = limits
        self.overflows = overflows
        """Requests and connections above a limit, by breaker."""
        self.connections = 0
        """Open or being dialled, idle ones included."""
        self.pending = 0
        """Requests that wait for a connection, new or used."""
        self.waiting: deque[asyncio.Future[None]] = deque()
        """Those of them for which there is no room yet."""
        self.evict: Callable[[], None] = _evict_nothing
        """Closes an idle connection somewhere, if there is one."""

    def refuse(self, breaker: str) -> OverloadError:
        """Count a refusal; returns what to raise."""
        self.overflows[breaker] += 1
        return overload(breaker)

    def enter(self) -> None:
        """A request begins to wait for a connection. Raises `OverloadError`."""
        if self.pending >= self.limits.max_pending_requests:
            raise self.refuse("max_pending_requests")
        self.pending += 1

    def try_open(self) -> bool:
        """Count a connection that is about to be dialled, if there is room for it."""
        if self.connections >= self.limits.max_connections:
            return False
        self.connections += 1
        return True

    def closed(self) -> None:
        """A connection that was counted is gone."""
        self.connections -= 1
        self.wake()

    async def wait(self, *, is_first: bool) -> None:
        """Wait until a connection was closed or became idle; those that waited before go first."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if is_first:
            self.waiting.append(waiter)
            self.overflows["max_connections"] += 1
        else:
            self.waiting.appendleft(waiter)
        self.evict()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self.waiting:
                self.waiting.remove(waiter)
            elif waiter.done() and not waiter.cancelled():
                self.wake()  # it was our turn, which we don't take
            raise

    def wake(self) -> None:
        """Let the next one look for a connection."""
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def _evict_nothing() -> None:
    pass
