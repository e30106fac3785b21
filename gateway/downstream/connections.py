"""All client connections together: the cap on them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from gateway.addresses import LOCAL_PEER, Networks, source_of
from gateway.downstream.h1 import ClientLimits, H1Connection
from gateway.downstream.request import ClientRequest
from gateway.metrics import Metrics

_OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n"
)


class ConnectionManager:
    """Makes the connections of a listening socket (it is its protocol factory), and knows
    those that are open."""

    def __init__(
        self,
        handle: Callable[[ClientRequest], None],
        *,
        limits: ClientLimits,
        metrics: Metrics,
        trusted_proxies: Networks | None = None,
        certificate_header: bytes = b"",
    ) -> None:
        self.handle = handle
        """Answers a request, now or later. Raises nothing."""
        self.limits = limits
        self.connections: set[H1Connection] = set()
        self.is_draining = False
        """While true, every response asks the client to close its connection."""
        self._counts = metrics.data_plane
        self.trusted_proxies = trusted_proxies or Networks()
        """Whose word about the client counts."""
        self.certificate_header = certificate_header
        """Where trusted proxies write the client's certificate; lower-case, empty for nowhere."""
        self._sources: dict[str, int] = {}
        """Open connections by where they come from, while `max_per_source` counts them."""
        self._counted: dict[H1Connection, str] = {}
        self._is_empty = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> H1Connection:
        return H1Connection(self, self._loop)

    def connection_of(self, peer: str) -> H1Connection:
        """A connection of a client at another address than the socket's peer."""
        connection = H1Connection(self, self._loop)
        connection.peer = peer
        return connection

    def local_connection(self) -> H1Connection:
        """A connection of a client on a Unix socket."""
        return self.connection_of(LOCAL_PEER)

    def reconfigure(
        self,
        handle: Callable[[ClientRequest], None],
        *,
        limits: ClientLimits,
        trusted_proxies: Networks,
        certificate_header: bytes,
    ) -> None:
        """Have the next requests answered by other rules; those in hand go on by theirs."""
        self.handle = handle
        rules = (limits, trusted_proxies, certificate_header)
        if rules == (self.limits, self.trusted_proxies, self.certificate_header):
            return
        self.limits, self.trusted_proxies, self.certificate_header = rules
        for connection in self.connections:
            connection.reconfigure()

    def opened(self, connection: H1Connection) -> None:
        """A client has connected. Above the cap it is told so, and let go."""
        self.connections.add(connection)
        connection.is_trusted = connection.peer in self.trusted_proxies
        self._counts.connections.inc()
        if len(self.connections) > self.limits.max_connections:
            self._refuse(connection, "max_connections")
        elif self.limits.max_per_source and not self._may_have_another(connection):
            self._refuse(connection, "max_connections_per_source")

    def _may_have_another(self, connection: H1Connection) -> bool:
        """Count a connection for its source, unless that has all it may have. Trusted proxies
        stand for many clients, and who comes over a Unix socket is local."""
        if connection.is_trusted or connection.peer == LOCAL_PEER:
            return True
        source = source_of(connection.peer)
        count = self._sources.get(source, 0)
        if count >= self.limits.max_per_source:
            return False
        self._sources[source] = count + 1
        self._counted[connection] = source
        return True

    def _refuse(self, connection: H1Connection, reason: str) -> None:
        self._counts.connections_refused[reason] += 1
        transport = connection.transport
        if transport is not None:
            transport.write(_OVERLOADED)
            transport.close()

    def lost(self, connection: H1Connection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        source = self._counted.pop(connection, None)
        if source is not None:
            left = self._sources[source] - 1
            if left:
                self._sources[source] = left
            else:
                del self._sources[source]
        if not self.connections:
            self._is_empty.set()
        self._counts.connections.dec()

    async def shutdown(self, *, timeout_s: float) -> None:
        """Cut every connection, and wait until all have ended."""
        for connection in tuple(self.connections):
            connection.abort()
        if self.connections:
            self._is_empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._is_empty.wait()
