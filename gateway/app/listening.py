"""Listening sockets: opened before anything else, shared out, and closed without losing a
connection.

The kernel completes handshakes by itself, and closing a listening socket resets every
connection that it holds ready but that we have not accepted. So the socket is first
made deaf: its queue can then be emptied, and nothing is in it when it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Mapping, Sequence

SO_ATTACH_FILTER = 26  # linux/socket.h; the socket module has no name for it
ACCEPT_S = 0.05
BACKLOG = 1024

Sockets = list[socket.socket]
"""What one process accepts from: a socket for each address of the host."""


def open_sockets(host: str, port: int, *, workers: int = 1) -> list[Sockets]:
    """Bind sockets for each worker, all to the same addresses. They don't listen yet.

    With several workers the kernel shares new connections out among them (SO_REUSEPORT).
    Raises `OSError` where the host has no address here, or the port is in use.
    """
    shares: list[Sockets] = [[] for _ in range(workers)]
    try:
        for family, address in _addresses(host, port):
            first = _bind(family, address)
            shares[0].append(first)
            if workers == 1:
                continue
            # Only now, so that another gateway on this port was an error, not a partner.
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound = first.getsockname()
            for share in shares[1:]:
                share.append(_bind(family, bound, reuse_port=True))
    except BaseException:
        close_sockets(shares)
        raise
    return shares


Address = tuple[str, int] | tuple[str, int, int, int]


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Address]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    return list(addresses)  # type: ignore[arg-type]


def _bind(
    family: socket.AddressFamily, address: Address, *, reuse_port: bool = False
) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # IPv4 has a socket of its own where the host means both.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(
            error.errno,
            f"error while attempting to bind on address {address!r}: "
            f"{(error.strerror or str(error)).lower()}",
        ) from None
    return bound


def close_sockets(shares: Sequence[Sockets]) -> None:
    """Let go of sockets."""
    for share in shares:
        for opened in share:
            opened.close()


class Accepting:
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
    ) -> None:
        self._make_connection = make_connection
        self._shares = dict(shares)
        self._tls = tls
        self._servers: dict[int, list[asyncio.Server]] = {}
        self._is_closed = False
        host, port, *_ = next(iter(shares.values()))[0].getsockname()
        self.address: tuple[str, int] = (host, port)

    async def begin(self, number: int) -> None:
        """Accept from the share of worker `number`. Raises `OSError`."""
        if self._is_closed or number in self._servers:
            return
        loop = asyncio.get_running_loop()
        servers = self._servers[number] = []
        for opened in self._shares[number]:
            # A duplicate: ending this server must not end the socket for the other worker.
            server = await loop.create_server(
                self._make_connection, sock=opened.dup(), ssl=self._tls, backlog=BACKLOG
            )
            servers.append(server)

    def end(self, number: int) -> None:
        """Accept no more from the share of worker `number`; it stays open for its owner."""
        for server in self._servers.pop(number, ()):
            server.close()

    async def close_when_empty(self) -> None:
        """Accept what the kernel has promised, and nothing after it; then close."""
        for number in self._servers:
            for opened in self._shares[number]:
                make_deaf(opened)
        # Time for the event loop to accept what is in the queue.
        await asyncio.sleep(ACCEPT_S)
        self.close()

    def close(self) -> None:
        """Close at once."""
        self._is_closed = True
        for number in tuple(self._servers):
            self.end(number)
        close_sockets(list(self._shares.values()))


def make_deaf(listening: socket.socket) -> None:
    """Let the kernel complete no more handshakes on a listening socket.

    On Linux, by a packet filter that drops everything: clients try again, and are refused
    once the socket is closed. Elsewhere, by the shortest queue there is.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # struct sock_filter: one instruction, "return 0 bytes of the packet".
            drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
            # struct sock_fprog: how many instructions, and where.
            program = struct.pack("HL", 1, ctypes.addressof(drop_all))
            listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
            return
    listening.listen(0)
