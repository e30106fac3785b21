"""Connections that are not simply there once accepted: a handshake comes first.

An event loop's own server takes its TLS context once and for all, and counts nobody who is in
a handshake. Here each connection is greeted by what holds when it comes, and its handshake is
bounded and accounted for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

ACCEPTS_AT_ONCE = 64
PAUSE_S = 0.25
"""How long nobody is accepted after the process had no descriptor, or no memory, for one."""
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger(__name__)


class Greeter:
    """Accepts from listening sockets and hands on who is through with the handshake."""

    def __init__(
        self,
        make_connection: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
        *,
        timeout_s: float,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_failure` is told of each handshake that came to nothing."""
        self._make_connection = make_connection
        self.tls = tls
        self.timeout_s = timeout_s
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._accepting: dict[int, socket.socket] = {}
        """A duplicate of each socket that we accept from, by the descriptor of the original."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def greeting(self) -> int:
        """Connections in a handshake."""
        return len(self._tasks)

    def begin(self, listening: socket.socket) -> None:
        """Accept from a socket."""
        # A duplicate: an event loop wants to have a descriptor for itself.
        own = self._accepting[listening.fileno()] = listening.dup()
        own.setblocking(False)
        self._loop.add_reader(own.fileno(), self._accept, own)

    def end(self, listening: socket.socket) -> None:
        """Accept no more from a socket, which stays open."""
        if own := self._accepting.pop(listening.fileno(), None):
            self._loop.remove_reader(own.fileno())
            own.close()

    async def stop(self) -> None:
        """Break every handshake off."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
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
            accepted.setblocking(False)
            task = self._loop.create_task(self._greet(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        _log.error("no connection can be accepted: %s", error.strerror)
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(PAUSE_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    async def _greet(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make_connection,
                accepted,
                ssl=self.tls,
                ssl_handshake_timeout=self.timeout_s if self.tls else None,
            )
        except (OSError, TimeoutError):
            self._on_failure()
            accepted.close()
        except BaseException:
            accepted.close()
            raise
