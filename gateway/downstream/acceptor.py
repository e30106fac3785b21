"""Takes connections from listening sockets, and closes those without losing one.

The kernel completes handshakes by itself, and closing a listening socket resets every
connection that it holds ready but that we have not accepted. So the socket first stops taking
new ones: its queue can then be emptied, and nothing is in it when it is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from typing import cast

from gateway.background import EXHAUSTED, RetryPauses
from gateway.downstream.handshake import Handshake
from gateway.downstream.sockets import (
    Sockets,
    address_of,
    close_sockets,
    has_waiting,
    limit_unsent,
    stop_accepting,
)

ACCEPT_S = 0.05
MORE_PAUSES = 80
"""How many pauses more the last connections in a queue are waited for: 2 s."""
ACCEPTS_AT_ONCE = 64
BACKLOG = 1024
PAUSE_S = 0.25
"""How long no connection is accepted after the process had no descriptor, or no memory, for one."""
MAX_HANDSHAKES = 4096
"""At once. For one more, the oldest is let go: an honest one takes milliseconds, and who holds
places by saying nothing must not keep others out."""

_log = logging.getLogger(__name__)


class Acceptor:
    """Accepts connections from one's own share of the sockets, and from another's on demand.

    `shares` are all shares by the number of the worker whose they are. The sockets belong
    to this object from here on.
    """

    def __init__(
        self,
        handshake: Handshake,
        shares: Mapping[int, Sockets],
        *,
        local: Handshake | None = None,
        keeps_queue: bool = False,
    ) -> None:
        """`local` is the handshake of connections of Unix sockets. With `keeps_queue` the sockets
        are open elsewhere, too, and connections in their queue at the end wait for the process that
        accepts from them next."""
        self.handshake = handshake
        """That of the next connections. Whether one is needed does not change."""
        self._is_needed = handshake.is_needed
        self._local = local or handshake
        self._shares = dict(shares)
        self._keeps_queue = keeps_queue
        self._loop = asyncio.get_running_loop()
        self._servers: dict[int, list[asyncio.Server]] = {}
        self._acceptor: dict[int, socket.socket] = {}
        """A duplicate of each socket that we accept from ourselves, by the descriptor of the
        original."""
        self._tasks: dict[asyncio.Task[None], None] = {}
        """Handshakes, in the order in which they came."""
        self._failures = RetryPauses("handshakes of clients")
        self._is_closed = False
        self.address = address_of(next(iter(shares.values()))[0])

    @property
    def handshakes(self) -> int:
        """Connections that are in a handshake."""
        return len(self._tasks)

    async def begin(self, number: int) -> None:
        """Accept from the share of worker `number`. Raises `OSError`."""
        if self._is_closed or number in self._servers:
            return
        servers = self._servers[number] = []
        for opened in self._shares[number]:
            limit_unsent(opened)
            # A duplicate: ending this server must not end the socket for the other worker, and
            # an event loop wants to have a descriptor for itself.
            own = opened.dup()
            # An event loop would remove the path of a Unix socket when it closes its own server.
            if self._is_needed or opened.family == socket.AF_UNIX:
                own.listen(BACKLOG)
                own.setblocking(False)
                self._acceptor[opened.fileno()] = own
                self._loop.add_reader(own.fileno(), self._accept, own)
            else:
                make = cast(Callable[[], asyncio.BaseProtocol], self.handshake.make_connection)
                servers.append(await self._loop.create_server(make, sock=own, backlog=BACKLOG))

    def end(self, number: int) -> None:
        """Accept no more from the share of worker `number`; it stays open for its owner."""
        servers = self._servers.pop(number, None)
        if servers is None:
            return
        for server in servers:
            server.close()
        for opened in self._shares[number]:
            if own := self._acceptor.pop(opened.fileno(), None):
                self._loop.remove_reader(own.fileno())
                own.close()

    def _accept(self, listening: socket.socket) -> None:
        is_local = listening.family == socket.AF_UNIX
        handshake = self._local if is_local else self.handshake
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._pause(listening, error)
                return
            if len(self._tasks) >= MAX_HANDSHAKES:
                oldest = next(iter(self._tasks))
                del self._tasks[oldest]
                oldest.cancel()
                self.handshake.on_failure()
            accepted.setblocking(False)
            task = self._loop.create_task(handshake.perform(accepted))
            self._tasks[task] = None
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            self._failures.fail(error)
            self.handshake.on_failure()
        else:
            self._failures.succeed()

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        _log.error("no connection can be accepted: %s", error.strerror)
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(PAUSE_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    async def close_when_empty(self) -> None:
        """Accept what the kernel has promised, and nothing after it; then close.

        A Unix socket has no path any more by then: no other client can connect to it.
        """
        if self._keeps_queue:
            self.close()
            return
        ending = [opened for number in self._servers for opened in self._shares[number]]
        for opened in ending:
            if opened.family != socket.AF_UNIX:
                stop_accepting(opened)
        # Time for the event loop to accept what is in the queue. In two parts: where the process
        # did not run for all of a pause, the loop ends it before it looks at any socket.
        for _ in range(2):
            await asyncio.sleep(ACCEPT_S / 2)
        # More of it where the process lacks that, or descriptors.
        for _ in range(MORE_PAUSES):
            if self._is_closed or not any(map(has_waiting, ending)):
                break
            await asyncio.sleep(ACCEPT_S / 2)
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
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
