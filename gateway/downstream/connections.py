"""All client connections together: the cap on them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from gateway.addresses import LOCAL_PEER, Networks, source_of
from gateway.downstream.h1 import H1Connection
from gateway.downstream.h2_limits import H2Settings
from gateway.downstream.request import NO_NETWORKS, Peer, Request
from gateway.downstream.stream import ClientLimits, ClientStream, Connection, ConnectionOwner
from gateway.metrics import Metrics


class ConnectionManager(ConnectionOwner):
    """Makes the connections of a listening socket, and knows those that are open."""

    # No `__call__`: mypyc lays a callable subclass out unlike its base.

    def __init__(
        self,
        handle: Callable[[ClientStream, Request], None],
        *,
        limits: ClientLimits,
        metrics: Metrics,
        trusted_proxies: Networks = NO_NETWORKS,
        certificate_header: bytes = b"",
    ) -> None:
        super().__init__(handle, limits)
        self.connections: set[Connection] = set()
        self._counts = metrics.data_plane
        self.h2_counts = metrics.data_plane.h2
        self._trusted_proxies = trusted_proxies
        self._certificate_header = certificate_header
        self._sources: dict[str, int] = {}
        """Open connections by where they come from, while `max_per_source` counts them."""
        self._counted: dict[Connection, str] = {}
        self._is_empty = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def make_connection(self) -> H1Connection:
        """A connection of the socket's peer (the protocol factory of an event loop)."""
        return H1Connection(self, self._loop)

    def connection_of(self, address: str) -> H1Connection:
        """A connection of a client at another address than the socket's peer."""
        return H1Connection(self, self._loop, address)

    def local_connection(self) -> H1Connection:
        """A connection of a client on a Unix socket."""
        return self.connection_of(LOCAL_PEER)

    def reconfigure(
        self,
        handle: Callable[[ClientStream, Request], None],
        *,
        limits: ClientLimits,
        trusted_proxies: Networks,
        certificate_header: bytes,
        http2: H2Settings | None = None,
    ) -> None:
        """Handle the next requests by other rules; those in flight go on by theirs."""
        self.handle = handle
        rules = (limits, trusted_proxies, certificate_header, http2)
        if rules == (self.limits, self._trusted_proxies, self._certificate_header, self.http2):
            return
        self.limits, self._trusted_proxies, self._certificate_header, self.http2 = rules
        for connection in self.connections:
            connection.reconfigure()

    def identify(self, address: str, *, scheme: str, certificate: bytes | None) -> Peer:
        return Peer(
            address,
            scheme=scheme,
            certificate=certificate,
            trusted_proxies=self._trusted_proxies,
            certificate_header=self._certificate_header,
        )

    def opened(self, connection: Connection) -> None:
        """A client has connected. Above the cap it is refused."""
        self.connections.add(connection)
        self._counts.connections.inc()
        if len(self.connections) > self.limits.max_connections:
            self._refuse(connection, "max_connections")
        elif self.limits.max_per_source and not self._may_have_another(connection):
            self._refuse(connection, "max_connections_per_source")

    def _may_have_another(self, connection: Connection) -> bool:
        """Count a connection for its source, unless that has all it may have. Trusted proxies
        stand for many clients, and clients of a Unix socket are local."""
        if connection.peer.is_trusted or connection.peer.is_local:
            return True
        source = source_of(connection.peer.address)
        count = self._sources.get(source, 0)
        if count >= self.limits.max_per_source:
            return False
        self._sources[source] = count + 1
        self._counted[connection] = source
        return True

    def _refuse(self, connection: Connection, reason: str) -> None:
        self._counts.connections_refused[reason] += 1
        connection.reject()

    def replaced(self, connection: Connection, successor: Connection) -> None:
        self.connections.discard(connection)
        self.connections.add(successor)
        source = self._counted.pop(connection, None)
        if source is not None:
            self._counted[successor] = source

    def lost(self, connection: Connection) -> None:
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

    def drain(self) -> None:
        """Ask every client to use another connection, now or with its next response."""
        self.is_draining = True
        for connection in tuple(self.connections):
            connection.drain()

    async def shutdown(self, *, timeout_s: float) -> None:
        """Cut every connection, and wait until all have ended."""
        for connection in tuple(self.connections):
            connection.reset()
        if self.connections:
            self._is_empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._is_empty.wait()
