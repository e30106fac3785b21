"""One address of a target: its connections, and whether it should be used.

A connection is taken from those that idle, without waiting, or dialled. What is known of
the endpoint comes from three sides: whether it could be connected to, what its responses
were (`outliers.py`), and what the health checks say (`health.py`). It tells its upstream
when that changes, so that no request has to look.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from gateway.http.errors import ConnectError, ConnectTimeoutError
from gateway.metrics import Tally
from gateway.upstream.circuit_breaker import Breaker
from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.outlier_detection import FailureCounts
from gateway.upstream.settings import SlowStart
from gateway.upstream.target import Target

PASSED_OVER_S = 5.0
"""How long an endpoint that could not be reached is passed over."""


class Endpoint:
    """A place that requests are sent to."""

    def __init__(
        self,
        target: Target,
        address: str,
        *,
        breaker: Breaker,
        ejections: Tally,
        on_change: Callable[[], None],
        on_outlier: Callable[[Endpoint, str], None],
        slow_start: SlowStart | None = None,
        failures: FailureCounts | None = None,
    ) -> None:
        """`address` is empty for wherever the target's URL leads by itself. `on_change` is
        called when it may have gone up or down, `on_outlier` when it fails too often."""
        self.target = target
        self.timeouts = target.timeouts
        self.address = address
        self.weight = target.weight
        self.turn_credit = 0.0
        """What it has saved up for its turn (smooth weighted round robin)."""
        self.warming_since = 0.0
        """When its slow start began; 0 if it has none, or it is over."""
        self.key = f"{target.url}\0{address}"
        """What `consistent_hash` knows it by."""
        self.failures = failures
        """Counts failures in a row, where the upstream ejects outliers."""
        self.is_healthy = True
        """What the health checks say."""
        self.unreachable_until = 0.0
        self.ejected_until = 0.0
        self.ejected_for = ""
        """Why it was ejected last."""
        self._breaker = breaker
        self._ejections = ejections
        self._on_change = on_change
        self._on_outlier = on_outlier
        self._slow_start = slow_start
        self._is_retired = False
        self._connections: set[UpstreamConnection] = set()
        self._idle: list[UpstreamConnection] = []
        self._waiting = 0

    def __repr__(self) -> str:
        where = f"{self.target.url} at {self.address}" if self.address else self.target.url
        return f"<Endpoint {where}, {self.active} active, {self.idle} idle>"

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    @property
    def active(self) -> int:
        """Requests that it has, those that wait for a connection included."""
        return len(self._connections) - len(self._idle) + self._waiting

    @property
    def is_retired(self) -> bool:
        """Whether it takes no more requests."""
        return self._is_retired

    def is_up(self, now: float) -> bool:
        """Whether nothing speaks against sending a request to it."""
        return self.is_healthy and now >= self.unreachable_until and now >= self.ejected_until

    def take_idle(self) -> UpstreamConnection | None:
        """The connection used last, so that those not needed can end. Never waits."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A connection, as soon as there is one.

        Raises `ConnectError`, `ConnectTimeoutError`, and `OverloadError` where the upstream's
        limits don't allow one.
        """
        breaker = self._breaker
        breaker.enter()
        self._waiting += 1
        try:
            if not breaker.try_open():
                idle = await self._wait_for_room()
                if idle is not None:
                    return idle
            return await self._open()
        finally:
            self._waiting -= 1
            breaker.pending -= 1

    async def _wait_for_room(self) -> UpstreamConnection | None:
        breaker = self._breaker
        is_first = True
        try:
            async with asyncio.timeout(self.timeouts.connect_s or None):
                while True:
                    await breaker.wait(is_first=is_first)
                    is_first = False
                    idle = self.take_idle()
                    if idle is not None or breaker.try_open():
                        return idle
        except TimeoutError:
            raise breaker.refuse("max_pending_requests") from None

    async def _open(self) -> UpstreamConnection:
        """A new connection, which the breaker has counted already."""
        try:
            async with asyncio.timeout(self.timeouts.connect_s or None):
                connection = await self.target.dial(self.address, self._make_connection)
        except TimeoutError:
            self._breaker.closed()
            self._pass_over()
            raise ConnectTimeoutError(
                "upstream_connect_timeout", "Connecting to the upstream took too long."
            ) from None
        except (OSError, ssl.SSLError, ssl.CertificateError) as error:
            self._breaker.closed()
            self._pass_over()
            raise ConnectError(
                "upstream_connect_failed", "The upstream can't be reached."
            ) from error
        except BaseException:
            self._breaker.closed()
            raise
        if not connection.is_open:
            self._breaker.closed()
            raise ConnectError("upstream_connect_failed", "The upstream closed at once.")
        self._connections.add(connection)
        if self.unreachable_until:
            self.unreachable_until = 0.0
            self._on_change()
        return connection

    def _make_connection(self) -> UpstreamConnection:
        return UpstreamConnection(
            asyncio.get_running_loop(),
            idle_timeout_s=self.timeouts.idle_s,
            on_lost=self._forget,
        )

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back whose exchange ended well."""
        if self._is_retired:
            connection.close()
            return
        connection.park(self.timeouts.keepalive_s)
        self._idle.append(connection)
        if self._breaker.waiting:
            self._breaker.wake()

    def _forget(self, connection: UpstreamConnection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._breaker.closed()
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self) -> bool:
        """Close the connection that has idled longest; returns whether there was one."""
        if not self._idle:
            return False
        self._idle.pop(0).abort()
        return True

    # Its share of the requests.

    def warm_up(self, now: float) -> None:
        """Begin a slow start."""
        if self._slow_start is not None:
            self.warming_since = now

    def weight_at(self, now: float) -> float:
        """Its weight, a slow start taken into account."""
        if not self.warming_since or self._slow_start is None:
            return float(self.weight)
        factor = self._slow_start.factor(now - self.warming_since)
        if factor >= 1.0:
            self.warming_since = 0.0
        return self.weight * factor

    # What is known of it.

    def failed(self) -> None:
        """It gave no response, or cut one off."""
        if self.failures is not None and (reason := self.failures.failed()):
            self._on_outlier(self, reason)

    def responded(self, status: int) -> None:
        """It gave a response."""
        if self.failures is not None and (reason := self.failures.responded(status)):
            self._on_outlier(self, reason)

    def _pass_over(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self.unreachable_until:
            self._ejections["connect_failure"] += 1
        self.unreachable_until = now + PASSED_OVER_S
        self.failed()
        self._on_change()

    # How it ends.

    def retire(self) -> None:
        """Take no more requests: idle connections close now, the others after their exchange."""
        self._is_retired = True
        while self.close_idle():
            pass

    def close(self) -> None:
        """Close every connection, those with an exchange in progress too."""
        self._is_retired = True
        for connection in tuple(self._connections):
            connection.abort()
