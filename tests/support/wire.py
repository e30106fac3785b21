"""A client's connection on a transport that keeps what is written, byte by byte."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from support import settings

from fuzz.transport import Transport
from gateway.downstream.connections import ConnectionManager
from gateway.downstream.h1 import H1Connection
from gateway.downstream.request import Request
from gateway.downstream.stream import ClientLimits
from gateway.http.errors import ProblemError
from gateway.http.fields import Trailers
from gateway.metrics import Metrics


@dataclass
class Seen:
    """A request and its body, as they came out."""

    connection: H1Connection
    request: Request
    body: bytes = b""
    is_complete: bool = False
    error: ProblemError | None = None
    pauses: bool = False
    """Whether it takes no more after each piece."""

    def take(self, piece: bytes) -> None:
        """A piece."""
        self.body += piece
        if self.pauses:
            self.connection.pause_body()

    def end_of_body(self, trailers: Trailers = ()) -> None:
        """The end: now a response can be sent."""
        self.is_complete = True
        respond(self.connection, self.request)

    def body_failed(self, error: ProblemError) -> None:
        """It broke off."""
        self.error = error
        self.connection._keeps_alive = False
        respond(self.connection, self.request)


def respond(connection: H1Connection, request: Request) -> None:
    """A minimal response, by whether the request could be read."""
    connection._settle_keep_alive()
    connection._write(b"E" if request.error else b"A")
    connection.release()


@dataclass
class Wire:
    """A connection whose requests are kept, and responded to at once unless `holds`."""

    limits: ClientLimits = settings.CLIENT_LIMITS
    holds: bool = False

    def __post_init__(self) -> None:
        self.seen: list[Seen] = []
        self.server = ConnectionManager(
            cast(Any, self._handle), limits=self.limits, metrics=Metrics()
        )
        self.connection = self.server.make_connection()
        self.transport = Transport()
        self.connection.connection_made(cast(asyncio.BaseTransport, self.transport))

    def _handle(self, connection: H1Connection, request: Request) -> None:
        seen = Seen(connection, request)
        self.seen.append(seen)
        if self.holds:
            return
        if request.error is None and request.head.has_body:
            connection.read_body(seen)
        else:
            seen.is_complete = request.error is None
            respond(connection, request)

    def receive(self, data: bytes, *, turns: bool = True) -> None:
        """Bytes from the client, unless the connection has ended; with `turns`, all that can be
        served of them is."""
        if data and not self.transport.is_closed:
            self.connection.data_received(data)
        while turns and self.server.turns._waiting:
            self.server.turns._take_turn()

    def summary(self) -> list[tuple[str, str, bytes, bool]]:
        """What came out."""
        return [
            (seen.request.method, seen.request.target.path, seen.body, seen.is_complete)
            for seen in self.seen
        ]
