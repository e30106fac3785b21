"""Listening sockets: opened before anything else, and shared out."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Sequence

from gateway.downstream.unix_socket import UnixSocket

SO_ATTACH_FILTER = 26  # linux/socket.h; the socket module has no name for it
NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
UNACKED_AT = 24
"""The offset of tcpi_unacked in tcp_info (linux/tcp.h)."""
MAX_UNSENT_BYTES = 128 * 1024
"""What the kernel takes of a response ahead of what the client's window lets it send."""

Sockets = list[socket.socket]
"""What one process accepts from: a socket for each address of the host."""


def open_sockets(host: str, port: int, *, workers: int = 1) -> list[Sockets]:
    """Bind sockets for each worker, all to the same addresses. They don't listen yet.

    With several workers the kernel shares new connections out among them (SO_REUSEPORT).
    Raises `OSError` where the host has no address here, or the port is in use.
    """
    shares: list[Sockets] = [[] for _ in range(workers)]
    try:
        missing: OSError | None = None
        for family, address in _addresses(host, port):
            try:
                first = _bind(family, address)
            except OSError as error:
                if error.errno not in NO_SUCH_ADDRESS:
                    raise
                missing = error  # a name may have addresses that this host lacks: ::1 without IPv6
                continue
            shares[0].append(first)
            if workers == 1:
                continue
            # Only now, so that another gateway on this port was an error, not a partner.
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound = first.getsockname()
            for share in shares[1:]:
                share.append(_bind(family, bound, reuse_port=True))
        if missing is not None and not shares[0]:
            raise missing
    except BaseException:
        close_sockets(shares)
        raise
    return shares


Address = tuple[str, int] | tuple[str, int, int, int]


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Address]]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (
        OSError,
        UnicodeError,
    ) as error:  # of a label that is no IDNA, too
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise OSError(f"can't listen on {host!r}: {reason}") from None
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    return list(addresses)  # type: ignore[arg-type]


def _bind(
    family: socket.AddressFamily, address: Address, *, reuse_port: bool = False
) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)  # EAFNOSUPPORT where IPv6 is off
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


def address_of(listening: socket.socket) -> tuple[str, int]:
    """Host and port; of a Unix socket its path, and 0."""
    name = listening.getsockname()
    return (name, 0) if listening.family == socket.AF_UNIX else (name[0], name[1])


def limit_unsent(listening: socket.socket) -> None:
    """Keep the kernel from taking more of a response than it will soon send.

    Without it, Linux takes some 4 MiB for each client that reads nothing, before the event loop
    knows of it: memory that no limit of ours counts, and time that others wait for. What is on
    its way to a client is not limited, so a fast one far away is no slower for it. Accepted
    connections inherit it; where the system knows no such limit, nothing happens.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None and listening.family != socket.AF_UNIX:
        listening.setsockopt(socket.IPPROTO_TCP, option, MAX_UNSENT_BYTES)


def stop_accepting(listening: socket.socket) -> None:
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


def has_waiting(listening: socket.socket) -> bool:
    """Whether connections wait to be accepted. Only Linux says so; elsewhere false."""
    if sys.platform != "linux" or listening.family == socket.AF_UNIX:
        return False
    # struct tcp_info: of a listening socket, tcpi_unacked is the length of its queue.
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, UNACKED_AT + 4)
    return len(info) == UNACKED_AT + 4 and struct.unpack_from("I", info, UNACKED_AT) != (0,)


class DataSockets:
    """A share for each worker, and what else has to be done for them."""

    def __init__(
        self,
        host: str,
        port: int | None,
        *,
        activated: Sequence[socket.socket] = (),
        workers: int = 1,
    ) -> None:
        """Open them; with `activated`, those are all that there are. Without a port, there are
        none until `add_unix`. Raises `OSError`."""
        self.is_activated = bool(activated)
        self._unix: UnixSocket | None = None
        self.shares: list[Sockets]
        if activated:
            self.shares = [[] for _ in range(workers)]
            for opened in activated:
                self._share(opened)
            return
        if port is None:
            self.shares = [[] for _ in range(workers)]
        else:
            self.shares = open_sockets(host, port, workers=workers)

    def add_unix(self, path: str, mode: int) -> None:
        """Accept at a path, too, which gets this mode. Raises `OSError`."""
        self._unix = UnixSocket(path, mode)
        self._share(self._unix.socket)

    def _share(self, opened: socket.socket) -> None:
        """Have all accept from one queue. The kernel shares connections out for the sockets of
        SO_REUSEPORT only."""
        first, *others = self.shares
        first.append(opened)
        for share in others:
            share.append(opened.dup())

    @property
    def address(self) -> tuple[str, int]:
        """Of the first one; a Unix socket has port 0."""
        return address_of(self.shares[0][0])

    def withdraw(self) -> None:
        """Remove the Unix socket's path, so that no new client finds it. Its queue remains."""
        if self._unix is not None:
            self._unix.withdraw()

    def close(self) -> None:
        """Let go of all of them, in this process."""
        self.withdraw()
        close_sockets(self.shares)
