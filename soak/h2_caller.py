"""Callers that speak HTTP/2: several share a connection, each with one stream at a time.

The engine is the gateway's: hyper-h2 takes a first GOAWAY, after which requests still end well,
for the end. Callers of gRPC are made of another one (`soak.grpc_traffic`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from gateway.http.h2 import (
    ENABLE_PUSH,
    NO_ERROR,
    REFUSED_STREAM,
    Fields,
    H2Error,
)
from gateway.http.h2_engine import H2Engine
from soak.message import RESPONSE_S, LostError, Request

CANCEL = 8


class NotProcessedError(Exception):
    """The gateway said that it did not process the request: it is sent again."""


class _Exchange:
    """A request, and what has come of its response."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """The response is whole."""
        if not self.done.done():
            self.done.set_result((self.status, self.body))

    def fail(self, error: Exception) -> None:
        """There will be none, or no more of it."""
        if not self.done.done():
            self.done.set_exception(error)


class _Connection(asyncio.Protocol):
    """One connection (`H2Events`)."""

    def __init__(self) -> None:
        self._engine = H2Engine(self, is_server=False, settings={ENABLE_PUSH: 0})
        self._exchanges: dict[int, _Exchange] = {}
        self._transport: asyncio.Transport | None = None
        self.is_usable = True
        """Whether it takes another request."""

    def open(self, request: Request) -> tuple[int, _Exchange]:
        """Send a request. Raises `NotProcessedError`."""
        try:
            stream = self._engine.open(request.as_h2(), ends=not request.body)
        except H2Error:
            self.is_usable = False
            raise NotProcessedError from None
        exchange = self._exchanges[stream] = _Exchange()
        pieces = request.pieces
        for number, piece in enumerate(pieces, 1):
            self._engine.send(stream, piece, ends=number == len(pieces))
        self._flush()
        return stream, exchange

    def cancel(self, stream: int) -> None:
        """Leave without the response."""
        self._engine.reset(stream, CANCEL)
        self._flush()

    def abort(self) -> None:
        """Hang up."""
        self.is_usable = False
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._transport is not None:
            try:
                self._transport.write(self._engine.data_to_send())
            except H2Error:
                self.abort()
            self._engine.report()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            self._engine.receive(data)
        except H2Error:
            self.abort()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.is_usable = False
        for exchange in self._exchanges.values():
            exchange.fail(LostError(f"connection lost {type(exc).__name__ if exc else ''}".strip()))
        self._exchanges.clear()

    def head_received(self, stream_id: int, fields: Fields, ends: bool) -> None:
        if exchange := self._exchanges.get(stream_id):
            exchange.status = int(dict(fields)[b":status"])
            if ends:
                exchange.end()

    def informational_received(self, stream_id: int, fields: Fields) -> None:
        pass

    def body_received(self, stream_id: int, data: bytes, ends: bool) -> None:
        self._engine.acknowledge(stream_id, len(data))
        if exchange := self._exchanges.get(stream_id):
            exchange.body += data
            if ends:
                exchange.end()

    def trailers_received(self, stream_id: int, fields: Fields) -> None:
        if exchange := self._exchanges.get(stream_id):
            exchange.end()

    def stream_reset(self, stream_id: int, code: int) -> None:
        pass

    def stream_closed(self, stream_id: int, code: int) -> None:
        if exchange := self._exchanges.pop(stream_id, None):
            if code == REFUSED_STREAM:
                exchange.fail(NotProcessedError())
            elif code != NO_ERROR:
                exchange.fail(LostError(f"stream reset, code {code}"))
            else:
                exchange.fail(LostError("stream closed"))

    def window_updated(self, stream_id: int, increment: int) -> None:
        pass

    def settings_received(self, settings: Mapping[int, int]) -> None:
        pass

    def settings_acknowledged(self) -> None:
        """Nothing waits for it."""

    def ping_received(self, data: bytes) -> None:
        pass

    def ping_acknowledged(self, data: bytes) -> None:
        pass

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        self.is_usable = False
        for stream, exchange in self._exchanges.items():
            if stream > last_stream_id:
                exchange.fail(NotProcessedError())

    def connection_ended(self, code: int) -> None:
        self.is_usable = False
        if self._transport is not None:
            self._transport.close()


class SharedConnection:
    """The connection of several callers; another one when it takes no more requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()

    async def get(self) -> _Connection:
        """Raises `OSError` where it is refused."""
        async with self._opening:
            if self._connection is None or not self._connection.is_usable:
                _, self._connection = await asyncio.get_running_loop().create_connection(
                    _Connection, "127.0.0.1", self._port
                )
        return self._connection

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.abort()


class H2Caller:
    """Sends one request after another."""

    prefix = "h2 "

    def __init__(self, shared: SharedConnection) -> None:
        self._shared = shared

    async def fetch(self, request: Request) -> tuple[int, bytes]:
        """Status and body. Raises `LostError`, and `OSError` before anything."""
        try:
            async with asyncio.timeout(RESPONSE_S):
                while True:
                    connection = await self._shared.get()
                    try:
                        _, exchange = connection.open(request)
                        return await exchange.done
                    except NotProcessedError:
                        await asyncio.sleep(0.01)
        except TimeoutError:
            raise LostError("TimeoutError") from None

    async def hang_up_on(self, request: Request) -> None:
        """Ask, and reset the stream without waiting."""
        try:
            connection = await self._shared.get()
            stream, exchange = connection.open(request)
        except (OSError, NotProcessedError):
            return
        await asyncio.sleep(0)
        connection.cancel(stream)
        exchange.done.cancel()

    def close(self) -> None:
        """Leave the connection to the others."""
