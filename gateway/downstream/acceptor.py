"""Takes connections from listening sockets, and closes those without losing one.

The kernel completes handshakes by itself, and closing a listening socket resets every
connection that it holds ready but that we have not accepted. So the socket is first
made deaf: its queue can then be emptied, and nothing is in it when it is closed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping

from gateway.downstream.handshake import Handshaker, ProxyRules
from gateway.downstream.sockets import (
    Sockets,
    address_of,
    close_sockets,
    limit_unsent,
    stop_accepting,
)

ACCEPT_S = 0.05
BACKLOG = 1024


class Acceptor:
    """Accepts connections from one's own share of the sockets, and from another's on demand.

    `shares` are all shares by the number of the worker whose they are. The sockets belong
    to this object from here on.
    """

    def __init__(
        self,
        make_connection: Callable[[], asyncio.BaseProtocol],
        shares: Mapping[int, Sockets],
        *,
        tls: ssl.SSLContext | None,
        handshake_timeout_s: float = 10.0,
        on_failed_handshake: Callable[[], None] = lambda: None,
        proxies: ProxyRules | None = None,
        connection_of: Callable[[str], asyncio.BaseProtocol] | None = None,
        on_refusal: Callable[[], None] = lambda: None,
        make_local: Callable[[], asyncio.BaseProtocol] | None = None,
        keeps_queue: bool = False,
    ) -> None:
        """With `tls` or `proxies`, a connection has `handshake_timeout_s` for what comes first;
        see `Handshaker`. `make_local` makes those of Unix sockets, which have neither. With
        `keeps_queue` the sockets are open elsewhere, too, and who waits in their queue at the end
        waits for whoever accepts from them next."""
        self._make_connection = make_connection
        self._keeps_queue = keeps_queue
        # An event loop would remove the path of a Unix socket when it closes its own server.
        self._local = Handshaker(make_local or make_connection, None, timeout_s=handshake_timeout_s)
        self._shares = dict(shares)
        self._handshaker: Handshaker | None = None
        if tls is not None or proxies is not None:
            self._handshaker = Handshaker(
                make_connection,
                tls,
                timeout_s=handshake_timeout_s,
                on_failure=on_failed_handshake,
                proxies=proxies,
                connection_of=connection_of,
                on_refusal=on_refusal,
            )
        self._servers: dict[int, list[asyncio.Server]] = {}
        self._is_closed = False
        self.address = address_of(next(iter(shares.values()))[0])

    @property
    def handshakes(self) -> int:
        """Connections that are in a handshake."""
        return self._local.handshakes + (self._handshaker.handshakes if self._handshaker else 0)

    def reconfigure(
        self,
        tls: ssl.SSLContext | None,
        *,
        handshake_timeout_s: float,
        proxies: ProxyRules | None = None,
    ) -> None:
        """Greet the next connections so. Those in a handshake go on as they began."""
        if self._handshaker is not None:
            self._handshaker.tls = tls
            self._handshaker.proxies = proxies
            self._handshaker.timeout_s = handshake_timeout_s

    async def begin(self, number: int) -> None:
        """Accept from the share of worker `number`. Raises `OSError`."""
        if self._is_closed or number in self._servers:
            return
        loop = asyncio.get_running_loop()
        servers = self._servers[number] = []
        for opened in self._shares[number]:
            limit_unsent(opened)
            if (handshaker := self._handshaker_of(opened)) is not None:
                opened.listen(BACKLOG)
                handshaker.begin(opened)
                continue
            # A duplicate: ending this server must not end the socket for the other worker.
            server = await loop.create_server(
                self._make_connection, sock=opened.dup(), backlog=BACKLOG
            )
            servers.append(server)

    def end(self, number: int) -> None:
        """Accept no more from the share of worker `number`; it stays open for its owner."""
        servers = self._servers.pop(number, None)
        if servers is None:
            return
        for server in servers:
            server.close()
        for opened in self._shares[number]:
            if (handshaker := self._handshaker_of(opened)) is not None:
                handshaker.end(opened)

    def _handshaker_of(self, opened: socket.socket) -> Handshaker | None:
        return self._local if opened.family == socket.AF_UNIX else self._handshaker

    async def close_when_empty(self) -> None:
        """Accept what the kernel has promised, and nothing after it; then close.

        A Unix socket has no path any more by then: nobody else can connect to it.
        """
        if self._keeps_queue:
            self.close()
            return
        for number in self._servers:
            for opened in self._shares[number]:
                if opened.family != socket.AF_UNIX:
                    stop_accepting(opened)
        # Time for the event loop to accept what is in the queue.
        await asyncio.sleep(ACCEPT_S)
        self.close()

    def close(self) -> None:
        """Close at once; handshakes that have begun go on until `stop`."""
        self._is_closed = True
        for number in tuple(self._servers):
            self.end(number)
        close_sockets(list(self._shares.values()))

    async def stop(self) -> None:
        """Close at once, and break handshakes off."""
        self.close()
        await self._local.stop()
        if self._handshaker is not None:
            await self._handshaker.stop()
