"""All client connections together: the cap on them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address

from gateway.metrics import Metrics
from gateway.proxy.client import ClientConnection, ClientLimits
from gateway.proxy.request import LOCAL_PEER, ClientRequest

_OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n"
)

Network = IPv4Network | IPv6Network


class ClientServer:
    """Makes the connections of a listening socket (it is its protocol factory), and knows
    those that are open."""

    def __init__(
        self,
        handle: Callable[[ClientRequest], None],
        *,
        limits: ClientLimits,
        metrics: Metrics,
        trusted_proxies: tuple[Network, ...] = (),
        certificate_header: bytes = b"",
    ) -> None:
        self.handle = handle
        """Answers a request, now or later. Raises nothing."""
        self.limits = limits
        self.connections: set[ClientConnection] = set()
        self.is_draining = False
        """While true, every answer asks the client to close its connection."""
        self._metrics = metrics
        self._trusted_proxies = trusted_proxies
        self.certificate_header = certificate_header
        """Where trusted proxies write the client's certificate; lower-case, empty for nowhere."""
        self._is_deserted = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> ClientConnection:
        return ClientConnection(self, self._loop)

    def reconfigure(
        self,
        handle: Callable[[ClientRequest], None],
        *,
        limits: ClientLimits,
        trusted_proxies: tuple[Network, ...],
        certificate_header: bytes,
    ) -> None:
        """Have the next requests answered by other rules; those in hand go on by theirs."""
        self.handle = handle
        rules = (limits, trusted_proxies, certificate_header)
        if rules == (self.limits, self._trusted_proxies, self.certificate_header):
            return
        self.limits, self._trusted_proxies, self.certificate_header = rules
        for connection in self.connections:
            connection.reconfigure()

    def is_trusted(self, peer: str) -> bool:
        """Whether `peer` is in `trusted_proxies`."""
        if not self._trusted_proxies or peer == LOCAL_PEER:
            return False
        address = ip_address(peer)
        return any(address in network for network in self._trusted_proxies)

    def opened(self, connection: ClientConnection) -> None:
        """A client has connected. Above the cap it is told so, and let go."""
        self.connections.add(connection)
        connection.is_trusted = self.is_trusted(connection.peer)
        self._metrics.connections.inc()
        transport = connection.transport
        if len(self.connections) > self.limits.max_connections and transport is not None:
            self._metrics.connections_refused.inc()
            transport.write(_OVERLOADED)
            transport.close()

    def lost(self, connection: ClientConnection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._is_deserted.set()
        self._metrics.connections.dec()

    async def shutdown(self, *, timeout_s: float) -> None:
        """Cut every connection, and wait until all have ended."""
        for connection in tuple(self.connections):
            connection.abort()
        if self.connections:
            self._is_deserted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._is_deserted.wait()
