"""The connections of an endpoint that may speak HTTP/2: streams of few shared ones.

  try_open, open          a shared connection has room                 MultiplexedStream
  ────────────────►  ─────────────────────────────────────────────►
                     none has: wait in line ──► one dial for all who wait ──► ALPN: h2 ──► shared
                                                                     └──► http/1.1 ──► as `pool`

Streams that end, and new connections, serve those who wait in order. What the last dial found is
remembered, so that requests to a target of HTTP/1.1 dial for themselves; when none of its
connections is left, the next dial asks again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from gateway.http.errors import ConnectError, ConnectTimeoutError, UpgradeUnsupportedError
from gateway.upstream.circuit_breaker import Breaker
from gateway.upstream.h2 import MultiplexedConnection
from gateway.upstream.h2_negotiation import Negotiation
from gateway.upstream.pool import ConnectionPool, unforeseen
from gateway.upstream.stream import ResponseSink, UpstreamStream
from gateway.upstream.target import Target


class MultiplexedPool(ConnectionPool):
    """Opens streams to one address of a target, most of them on shared connections."""

    def __init__(
        self,
        target: Target,
        address: str,
        breaker: Breaker,
        *,
        on_connected: Callable[[], None],
        on_connect_failed: Callable[[], None],
        on_multiplexed: Callable[[], None],
    ) -> None:
        """`on_multiplexed` is called when a connection of HTTP/2 was made."""
        super().__init__(
            target,
            address,
            breaker,
            on_connected=on_connected,
            on_connect_failed=on_connect_failed,
        )
        self._on_multiplexed = on_multiplexed
        self._shared: list[MultiplexedConnection] = []
        self._queue: deque[tuple[asyncio.Future[UpstreamStream | None], ResponseSink]] = deque()
        """Who waits for a stream; None has them dial for themselves."""
        self._dialling: asyncio.Task[None] | None = None
        self._is_http1 = False
        """What the last dial found."""

    @property
    def idle(self) -> int:
        return len(self._idle) + sum(not one.stream_count for one in self._shared)

    @property
    def active(self) -> int:
        own = len(self._connections) - len(self._idle) + self._waiting
        return own + sum(one.stream_count for one in self._shared)

    def try_open(self, sink: ResponseSink) -> UpstreamStream | None:
        if sink.needs_upgrade():
            return ConnectionPool.try_open(self, sink)
        if not self._queue and (stream := self._take(sink)) is not None:
            return stream
        return ConnectionPool.try_open(self, sink)

    async def open(self, sink: ResponseSink) -> UpstreamStream:
        if sink.needs_upgrade():
            if self._target.protocol == "http2":
                raise UpgradeUnsupportedError(
                    "upstream_websocket",
                    "WebSockets take HTTP/1.1, and the upstream is spoken to by HTTP/2.",
                )
            return await ConnectionPool.open(self, sink)
        if self._is_http1 and self._connections:
            return await ConnectionPool.open(self, sink)
        stream = await self._wait_for_stream(sink)
        if stream is None:
            stream = ConnectionPool.try_open(self, sink)
        return await ConnectionPool.open(self, sink) if stream is None else stream

    async def _wait_for_stream(self, sink: ResponseSink) -> UpstreamStream | None:
        waiter: asyncio.Future[UpstreamStream | None] = asyncio.get_running_loop().create_future()
        self._breaker.enter()
        self._waiting += 1
        self._queue.append((waiter, sink))
        self._serve()
        try:
            async with asyncio.timeout(self._target.timeouts.connect_s or None):
                return await waiter
        except TimeoutError:
            self._let_go(waiter)
            if self._shared or self._dialling is None:
                raise self._breaker.refuse("max_pending_requests") from None
            raise _timed_out() from None
        except asyncio.CancelledError:
            self._let_go(waiter)
            raise
        finally:
            del waiter  # it knows its error, which knows this frame: a cycle

    def close_idle(self) -> bool:
        for connection in self._shared:
            if not connection.stream_count and not connection.is_draining:
                connection.drain()
                return True
        return ConnectionPool.close_idle(self)

    def retire(self) -> None:
        ConnectionPool.retire(self)
        for connection in tuple(self._shared):
            connection.drain()

    def close(self) -> None:
        ConnectionPool.close(self)
        if self._dialling is not None:
            self._dialling.cancel()
        self._fail_waiting(ConnectError("upstream_connect_failed", "The gateway is closing."))
        for connection in tuple(self._shared):
            connection.abort()

    def _take(self, sink: ResponseSink) -> UpstreamStream | None:
        """A stream of the first connection with room, so that those not needed can end."""
        for connection in self._shared:
            if connection.has_room:
                return connection.open(sink)
        return None

    def _let_go(self, waiter: asyncio.Future[UpstreamStream | None]) -> None:
        """Count one no more who waits no longer, or give back what it has received meanwhile."""
        if waiter.cancelled():  # with the task that waited
            self._waits_no_more()
        elif waiter.exception() is None:
            stream = waiter.result()
            if stream is not None:
                stream.cancel()

    def _is_held_off(self) -> bool:
        """Whether a peer allows no streams: another connection would have none either."""
        return any(connection.is_held_off for connection in self._shared)

    def _waits_no_more(self) -> None:
        """A request has its stream, or gets none. Not when its task continues: until then, it would
        count twice."""
        self._waiting -= 1
        self._breaker.pending -= 1

    def _serve(self) -> None:
        """Give streams to those who wait, and dial for those who get none."""
        queue = self._queue
        while queue:
            waiter, sink = queue[0]
            if not waiter.done():
                stream = self._take(sink)
                if stream is None:
                    break
                waiter.set_result(stream)
                self._waits_no_more()
            queue.popleft()
        if not queue or self._dialling is not None or self._is_held_off():
            return
        breaker = self._breaker
        if self._shared and breaker.connections >= breaker.limits.max_connections:
            return  # the next stream that ends serves them
        self._dialling = asyncio.get_running_loop().create_task(self._dial_for_all())

    async def _dial_for_all(self) -> None:
        breaker = self._breaker
        try:
            is_first = True
            while self._queue and not self._is_held_off():
                if breaker.try_open():
                    await self._dial_shared()
                elif self._shared:
                    return
                else:
                    await breaker.wait(is_first=is_first)
                    is_first = False
            if not is_first:
                breaker.wake()  # it was our turn, and no request waits any more
        except (ConnectError, ConnectTimeoutError) as error:
            self._fail_waiting(error)
        except Exception as error:  # requests must not wait for ever
            self._fail_waiting(unforeseen(error))
        finally:
            self._dialling = None

    async def _dial_shared(self) -> None:
        """Dial, and serve those who wait. Raises `ConnectError` and `ConnectTimeoutError`."""
        wire = await self._connect(self._make_wire)
        if wire.http2 is not None and wire.http2.is_open:
            self._shared.append(wire.http2)
            self._is_http1 = False
            self._on_connected()
            self._on_multiplexed()
            self._serve()
            if self._is_retired:
                wire.http2.drain()
        elif wire.http1 is not None and wire.http1.is_open and self._target.protocol == "auto":
            self._is_http1 = True
            self._connections.add(wire.http1)
            self._on_connected()
            self.add(wire.http1)
            while self._queue:
                waiter, _ = self._queue.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    self._waits_no_more()
        else:
            if wire.http1 is not None:
                wire.http1.cancel()
            self._breaker.closed()
            self._on_connect_failed()
            raise ConnectError(
                "upstream_connect_failed",
                "The upstream closed at once."
                if wire.http2 is not None
                else "The upstream does not speak HTTP/2 (ALPN).",
            )

    def _fail_waiting(self, error: ConnectError | ConnectTimeoutError) -> None:
        while self._queue:
            waiter, _ = self._queue.popleft()
            if not waiter.done():
                waiter.set_exception(type(error)(error.reason, error.detail))
                self._waits_no_more()

    def _make_wire(self) -> Negotiation:
        return Negotiation(self.make_connection, self._make_shared)

    def _make_shared(self, scheme: bytes) -> MultiplexedConnection:
        return MultiplexedConnection(
            asyncio.get_running_loop(),
            self._target.timeouts,
            scheme=scheme,
            on_lost=self._forget_shared,
            on_changed=self._serve_again,
        )

    def _serve_again(self, connection: MultiplexedConnection) -> None:
        if self._queue:
            self._serve()

    def _forget_shared(self, connection: MultiplexedConnection) -> None:
        if connection in self._shared:
            self._shared.remove(connection)
            self._breaker.closed()
        self._serve_again(connection)


def _timed_out() -> ConnectTimeoutError:
    return ConnectTimeoutError(
        "upstream_connect_timeout", "Connecting to the upstream took too long."
    )
