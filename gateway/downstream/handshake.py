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
from dataclasses import dataclass
from functools import partial

from gateway.addresses import Networks, plain_address
from gateway.downstream.proxy_protocol import ProxyHeaderReader, ProxyProtocolError, end_of_line

ACCEPTS_AT_ONCE = 64
PAUSE_S = 0.25
"""How long nobody is accepted after the process had no descriptor, or no memory, for one."""
MAX_HANDSHAKES = 4096
"""Handshakes at once. For one more, the oldest is let go: an honest one takes milliseconds, and
who holds places by saying nothing must not keep others out."""
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """From whom a header of the PROXY protocol is wanted, and believed."""

    networks: Networks
    takes_others: bool = False
    """Whether others may connect, without one; otherwise they are refused."""

    def wants_header(self, peer: str) -> bool:
        """Whether one must come. Raises `ProxyProtocolError` for those who may not connect."""
        if peer in self.networks:
            return True
        if self.takes_others:
            return False
        raise ProxyProtocolError("this peer is no known proxy")


class Handshaker:
    """Accepts from listening sockets and hands on who is through with the handshake."""

    def __init__(
        self,
        make_connection: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
        *,
        timeout_s: float,
        on_failure: Callable[[], None] = lambda: None,
        proxies: ProxyRules | None = None,
        connection_of: Callable[[str], asyncio.BaseProtocol] | None = None,
        on_refusal: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_failure` is told of each handshake that came to nothing. With `proxies`, a header
        of the PROXY protocol comes first, `connection_of` makes the connection of the client that
        it names, and `on_refusal` is told of who had none to show."""
        self._make_connection = make_connection
        self.tls = tls
        self.timeout_s = timeout_s
        self.proxies = proxies
        self._connection_of = connection_of
        self._on_refusal = on_refusal
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._acceptor: dict[int, socket.socket] = {}
        """A duplicate of each socket that we accept from, by the descriptor of the original."""
        self._tasks: dict[asyncio.Task[None], None] = {}
        """In the order in which they came."""

    @property
    def handshakes(self) -> int:
        """Connections in a handshake."""
        return len(self._tasks)

    def begin(self, listening: socket.socket) -> None:
        """Accept from a socket."""
        # A duplicate: an event loop wants to have a descriptor for itself.
        own = self._acceptor[listening.fileno()] = listening.dup()
        own.setblocking(False)
        self._loop.add_reader(own.fileno(), self._accept, own)

    def end(self, listening: socket.socket) -> None:
        """Accept no more from a socket, which stays open."""
        if own := self._acceptor.pop(listening.fileno(), None):
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
            if len(self._tasks) >= MAX_HANDSHAKES:
                oldest = next(iter(self._tasks))
                del self._tasks[oldest]
                oldest.cancel()
                self._on_failure()
            accepted.setblocking(False)
            task = self._loop.create_task(self._handshake(accepted))
            self._tasks[task] = None
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        _log.error("no connection can be accepted: %s", error.strerror)
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(PAUSE_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    async def _handshake(self, accepted: socket.socket) -> None:
        make = self._make_connection
        try:
            if self.proxies is not None:
                async with asyncio.timeout(self.timeout_s):
                    client = await self._read_proxy_header(accepted, self.proxies)
                if client is not None and self._connection_of is not None:
                    make = partial(self._connection_of, client)
        except (OSError, TimeoutError, ProxyProtocolError):
            self._on_refusal()
            accepted.close()
            return
        except BaseException:
            accepted.close()
            raise
        try:
            await self._loop.connect_accepted_socket(
                make,
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

    async def _read_proxy_header(self, accepted: socket.socket, rules: ProxyRules) -> str | None:
        """The client that a load balancer names, None for the peer itself.

        Exactly the header is taken from the socket: what follows is for TLS, or HTTP. Raises
        `ProxyProtocolError` and `OSError`.
        """
        if not rules.wants_header(plain_address(accepted.getpeername()[0])):
            return None
        reader = ProxyHeaderReader()
        while True:
            await self._readable(accepted)
            count = reader.wanted
            try:
                if reader.peeks:
                    count = end_of_line(accepted.recv(count, socket.MSG_PEEK))
                data = accepted.recv(count) if count else b""
            except (BlockingIOError, InterruptedError):
                continue
            if not data:
                raise ProxyProtocolError("the connection ended within the header")
            header = reader.feed(data)
            if header is not None:
                return header.source

    async def _readable(self, accepted: socket.socket) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(accepted.fileno(), _report, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(accepted.fileno())


def _report(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
