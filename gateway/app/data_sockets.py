"""The listening sockets of the data plane: bound as the configuration says, or systemd's."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from gateway.config.model import Listen
from gateway.downstream.sockets import Sockets, address_of, close_sockets, open_sockets
from gateway.downstream.unix_socket import UnixSocket


class DataSockets:
    """A share for each worker, and what else has to be done for them."""

    def __init__(
        self, listen: Listen, activated: Sequence[socket.socket] = (), *, workers: int = 1
    ) -> None:
        """Open them; with `activated`, those are all that there are. Raises `OSError`."""
        self.is_activated = bool(activated)
        self._unix: UnixSocket | None = None
        self.shares: list[Sockets]
        if activated:
            self.shares = [[] for _ in range(workers)]
            for opened in activated:
                self._share(opened)
            return
        self.shares = open_sockets(listen.host, listen.port, workers=workers)
        if listen.unix is not None:
            try:
                self._unix = UnixSocket(listen.unix.path, int(listen.unix.mode, 8))
            except BaseException:
                close_sockets(self.shares)
                raise
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
        """Let nobody new find the Unix socket. Who has connected is in its queue."""
        if self._unix is not None:
            self._unix.withdraw()

    def close(self) -> None:
        """Let go of all of them, in this process."""
        self.withdraw()
        close_sockets(self.shares)
