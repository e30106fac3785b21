"""The client's connection: aiohttp's low-level server, with the deadlines and caps it lacks.

aiohttp parses requests (llhttp, strict), keeps pipelined ones in order, applies
back-pressure to bodies and lingers on close. Added here: a deadline and a size for
heads that come in slowly, a cap on connections, answers to unreadable requests that
put nothing of them into a log, and a request object that costs no more than it must.

This module is the only one that knows aiohttp's server protocol, private parts
included; everything else talks to `ClientRequest`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from gateway.metrics import Metrics
from gateway.proxy.exchange import Exchange
from gateway.proxy.headers import LOCAL_PEER
from gateway.proxy.problems import BadRequestError, HeadTooLargeError, ProblemError
from gateway.proxy.tunnel import Tunnel

_OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n"
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LINGER_S = 5.0
"""How long what a client still sends is read, and thrown away, after a final answer."""

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client, and all together, may use."""

    max_connections: int = 10_000
    head_timeout_s: float = 10.0
    """From the first byte of a head to its last."""
    body_timeout_s: float = 60.0
    """The longest pause within a body, in either direction."""
    keepalive_timeout_s: float = 75.0
    head_bytes: int = 32 * 1024
    headers: int = 100


class ClientRequest:
    """One request and the way to answer it.

    It is both the request and the response in aiohttp's eyes, since the answer is
    written to the transport directly.
    """

    __slots__ = (
        "_protocol", "_task", "body", "exchange", "has_upgrade", "head_error",
        "is_chunked", "is_http_10", "keep_alive", "method", "raw_headers", "target",
    )  # fmt: skip

    def __init__(
        self, message: RawRequestMessage, payload: StreamReader, protocol: ClientConnection
    ) -> None:
        self.method: str = message.method
        self.target: str = message.path
        self.raw_headers = message.raw_headers
        self.is_http_10 = message.version < (1, 1)
        self.is_chunked = message.chunked
        self.has_upgrade = message.upgrade
        # aiohttp's parser leaves the last trailer field of a chunked request behind, and
        # hands it out as the first field of the next request on the connection. So there
        # is no next request after a chunked one.
        self.keep_alive = not message.should_close and not message.chunked
        self.body = payload
        self.head_error: ProblemError | None = None
        """Why the head could not be read, if so."""
        self.exchange: Exchange | None = None
        """Whom to pause when the client takes no more."""
        self._protocol = protocol
        self._task: asyncio.Task[None] | None = None

    @property
    def connection(self) -> ClientConnection:
        """The connection it came on."""
        return self._protocol

    def settle_keep_alive(self) -> bool:
        """Decide whether the connection can serve another request, for the head that tells it.

        Decided once: a drain that begins after the head was rendered must not close a
        connection on which the client was promised another answer.
        """
        if self._protocol.server.is_draining:
            self.keep_alive = False
        return self.keep_alive

    def write(self, chunk: bytes) -> None:
        """Send bytes of the answer; for a client that has gone away, nothing."""
        transport = self._protocol.transport
        if transport is not None and not transport.is_closing():
            transport.write(chunk)

    def send_continue(self) -> None:
        """Tell a client that waits for it to send the body (RFC 9110 section 15.2.1)."""
        if not self.is_http_10:
            self.write(_CONTINUE)

    def abort(self) -> None:
        """Cut the connection, so that a partial answer can't be taken for a whole one."""
        self.keep_alive = False
        if self._protocol.transport is not None:
            self._protocol.transport.abort()

    def feed_tunnel(self, tunnel: Tunnel) -> None:
        """Hand every byte that comes from now on to the tunnel."""
        self._protocol.set_parser(tunnel)  # type: ignore[arg-type]

    def pause_reading(self) -> None:
        """Take no more bytes from the client."""
        self._protocol.pause_transport()

    def resume_reading(self) -> None:
        """Take bytes from the client again."""
        self._protocol.resume_transport()

    # What aiohttp asks of a request, and of a response.

    def _finish(self) -> None:
        pass

    def _cancel(self, error: BaseException) -> None:
        self.body.set_exception(error)

    async def prepare(self, request: ClientRequest) -> None:
        """Nothing: the head was written with the first bytes of the body."""

    async def write_eof(self) -> None:
        """Wait until the client has taken the answer, or enough of it."""
        if self._protocol.writing_paused:
            try:
                async with asyncio.timeout(self._protocol.limits.body_timeout_s):
                    await self._protocol._drain_helper()
            except TimeoutError:
                self.abort()


Handler = Callable[[ClientRequest], Awaitable[ClientRequest]]


class ClientConnection(RequestHandler):
    """A client's connection, as one of a `ClientServer`."""

    __slots__ = ("_head_bytes", "_head_timer", "forwarding", "host", "limits", "peer", "server")

    def __init__(self, server: ClientServer, *, loop: asyncio.AbstractEventLoop) -> None:
        limits = server.limits
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,
            keepalive_timeout=limits.keepalive_timeout_s,
            lingering_time=LINGER_S,
            max_headers=limits.headers,
            max_field_size=limits.head_bytes,
            max_line_size=limits.head_bytes,
        )
        self.server = server
        self.limits = limits
        self.peer = LOCAL_PEER
        # Requests on one connection mostly name the same host: what was found out about
        # it, and the lines made from it, are kept for the next one.
        self.host: tuple[bytes, str] | None = None
        self.forwarding: tuple[bytes, bytes] | None = None
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_from_trusted_proxy(self) -> bool:
        """Whether the peer is one whose word about the client counts."""
        return self.server.is_trusted(self.peer)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.peername:
            self.peer = str(self.peername[0])
        self.server.metrics.connections.inc()
        if len(self.server.connections) > self.limits.max_connections:
            self.server.metrics.connections_refused.inc()
            assert self.transport is not None
            self.transport.write(_OVERLOADED)
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end_of_head()
        self.server.metrics.connections.dec()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiter = self._waiter
        if waiter is None or waiter.done():
            # A request is being handled: its head is complete.
            if self._head_timer is not None:
                self._end_of_head()
        elif data:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._refuse_head(HeadTooLargeError.status)
            elif self._head_timer is None:
                self._head_timer = self._loop.call_later(
                    self.limits.head_timeout_s, self._refuse_head, 408
                )

    def _end_of_head(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self, status: int) -> None:
        self._end_of_head()
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(self.server.refuse_head(self.peer, status))
            self.force_close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if (request := self._request_in_hand) and request.exchange is not None:
            request.exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if (request := self._request_in_hand) and request.exchange is not None:
            request.exchange.resume()

    @property
    def _request_in_hand(self) -> ClientRequest | None:
        return cast(ClientRequest | None, self._current_request)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request of which nothing has come yet."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and self._head_timer is None

    def pause_transport(self) -> None:
        """Stop reading from the socket."""
        self._pause_transport_reading()

    def resume_transport(self) -> None:
        """Read from the socket again."""
        self._resume_transport_reading()

    def _make_error_handler(self, err_info: Any) -> Any:
        # aiohttp would log a traceback with the offending line in it, which may well be
        # an Authorization header, and answer in text/plain.
        error: ProblemError
        if isinstance(err_info.exc, LineTooLong) or "Too many headers" in err_info.message:
            error = HeadTooLargeError("head_too_large", "The request head is too large.")
        else:
            error = BadRequestError("malformed", "The request is not valid HTTP/1.1.")

        async def handle(request: ClientRequest) -> ClientRequest:
            request.head_error = error
            return await self.server.handle(request)

        return handle


class ClientServer(web.Server):
    """Makes the connections, and knows those that are open."""

    def __init__(
        self,
        handle: Handler,
        *,
        limits: ClientLimits,
        metrics: Metrics,
        refuse_head: Callable[[str, int], bytes],
        trusted_proxies: tuple[Network, ...] = (),
    ) -> None:
        super().__init__(
            handle,  # type: ignore[arg-type]
            request_factory=_make_request,  # type: ignore[arg-type]
            handler_cancellation=True,
        )
        self.handle = handle
        self.limits = limits
        self.metrics = metrics
        self.refuse_head = refuse_head
        """Accounts for a head that never became a request, and renders the answer to it."""
        self._trusted_proxies = trusted_proxies
        self.is_draining = False
        """While true, every answer asks the client to close its connection."""

    def __call__(self) -> ClientConnection:
        return ClientConnection(self, loop=self._loop)

    def is_trusted(self, peer: str) -> bool:
        """Whether `peer` is in `trusted_proxies`."""
        if not self._trusted_proxies or peer == LOCAL_PEER:
            return False
        address = ip_address(peer)
        return any(address in network for network in self._trusted_proxies)


def _make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: ClientConnection,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> ClientRequest:
    return ClientRequest(message, payload, protocol)
