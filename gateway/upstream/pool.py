"""The connections of one endpoint. Gives streams: an idle connection without waiting, or a new one.

             try_open                       release
idle  ───────────────────►  active  ───────────────────►  idle
 ▲                            ▲ │
 │ keep-alive ends, retire    │ │ cancel, lost, unfit for another exchange
 ▼                            │ ▼
closed        open: dialled ──┘ closed
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from gateway.http.errors import ConnectError, ConnectTimeoutError
from gateway.upstream.circuit_breaker import Breaker
from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.stream import ResponseSink, UpstreamStream
from gateway.upstream.target import Connection, Target

_log = logging.getLogger(__name__)


class ConnectionPool:
    """Opens streams to one address of a target, within the limits of its upstream."""

    def __init__(
        self,
        target: Target,
        address: str,
        breaker: Breaker,
        *,
        on_connected: Callable[[], None],
        on_connect_failed: Callable[[], None],
    ) -> None:
        """The callbacks report every outcome of a dial."""
        self._target = target
        self._address = address
        self._breaker = breaker
        self._on_connected = on_connected
        self._on_connect_failed = on_connect_failed
        self._is_retired = False
        self._connections: set[UpstreamConnection] = set()
        self._idle: list[UpstreamConnection] = []
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<ConnectionPool {self.active} active, {self.idle} idle>"

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    @property
    def active(self) -> int:
        """Requests in progress, those that wait for a connection included."""
        return len(self._connections) - len(self._idle) + self._waiting

    @property
    def is_retired(self) -> bool:
        """Whether it opens no more streams."""
        return self._is_retired

    def try_open(self, sink: ResponseSink) -> UpstreamStream | None:
        """Open a stream on the connection used last, so that those not needed can end; None
        where none idles. Never waits."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open:
                connection.begin(sink)
                return connection
        return None

    async def open(self, sink: ResponseSink) -> UpstreamStream:
        """Open a stream on a new connection, or on the first that becomes idle while the upstream
        may have no more.

        Raises `ConnectError`, `ConnectTimeoutError`, and `OverloadError` where the upstream's
        limits don't allow one.
        """
        breaker = self._breaker
        breaker.enter()
        self._waiting += 1
        try:
            connection = None
            if not breaker.try_open():
                connection = await self._wait_for_room()
            if connection is None:
                connection = await self._dial()
        finally:
            self._waiting -= 1
            breaker.pending -= 1
        connection.begin(sink)
        return connection

    def add(self, connection: UpstreamConnection) -> None:
        """Take a connection that idles."""
        if self._is_retired:
            connection.close()
            return
        connection.park()
        self._idle.append(connection)
        if self._breaker.waiting:
            self._breaker.wake()

    def make_connection(self) -> UpstreamConnection:
        """The protocol of a new connection, which returns here after each exchange."""
        return UpstreamConnection(
            asyncio.get_running_loop(),
            self._target.timeouts,
            on_lost=self._forget,
            on_released=self.add,
        )

    def close_idle(self) -> bool:
        """Close the connection that has idled longest; returns whether there was one."""
        if not self._idle:
            return False
        self._idle.pop(0).cancel()
        return True

    def retire(self) -> None:
        """Open no more: idle connections close now, the others after their exchange."""
        self._is_retired = True
        while self.close_idle():
            pass

    def close(self) -> None:
        """Close every connection, those with an exchange in progress too."""
        self._is_retired = True
        for connection in tuple(self._connections):
            connection.cancel()

    def _take_idle(self) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _wait_for_room(self) -> UpstreamConnection | None:
        breaker = self._breaker
        is_first = True
        try:
            async with asyncio.timeout(self._target.timeouts.connect_s or None):
                while True:
                    await breaker.wait(is_first=is_first)
                    is_first = False
                    idle = self._take_idle()
                    if idle is not None or breaker.try_open():
                        return idle
        except TimeoutError:
            raise breaker.refuse("max_pending_requests") from None

    async def _dial(self) -> UpstreamConnection:
        """A new connection, which the breaker has counted already."""
        connection = await self._connect(self.make_connection, is_http1=True)
        if not connection.is_open:
            self._breaker.closed()
            raise ConnectError("upstream_connect_failed", "The upstream closed at once.")
        self._connections.add(connection)
        self._on_connected()
        return connection

    async def _connect(
        self, make_connection: Callable[[], Connection], *, is_http1: bool = False
    ) -> Connection:
        """Dial; what fails is reported, and counted no more. Raises `ConnectError` and
        `ConnectTimeoutError`."""
        try:
            async with asyncio.timeout(self._target.timeouts.connect_s or None):
                return await self._target.dial(self._address, make_connection, is_http1=is_http1)
        except TimeoutError:
            self._breaker.closed()
            self._on_connect_failed()
            raise ConnectTimeoutError(
                "upstream_connect_timeout", "Connecting to the upstream took too long."
            ) from None
        except (OSError, ssl.SSLError, ssl.CertificateError) as error:
            self._breaker.closed()
            self._on_connect_failed()
            raise ConnectError(
                "upstream_connect_failed", "The upstream can't be reached."
            ) from error
        except BaseException:
            self._breaker.closed()
            raise

    def _forget(self, connection: UpstreamConnection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._breaker.closed()
        if connection in self._idle:
            self._idle.remove(connection)


def unforeseen(error: Exception) -> ConnectError:
    """Log an exception that no dial should raise, and return what its requests fail with."""
    _log.error("connecting to an upstream failed", exc_info=error)
    return ConnectError("upstream_connect_failed", "The upstream can't be reached.")
