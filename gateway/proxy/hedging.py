"""A second request beside one that takes its time; the first good response wins.

Only for requests that may be sent twice. The rival keeps what it hears to itself until
its response is the one that counts: then the exchange goes on with the rival's connection,
and the first one is given up.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.http.errors import UpstreamError
from gateway.http.response_head import ResponseHead
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.h1 import ResponseSink, UpstreamConnection


class HedgedExchange(ResponseSink, Protocol):
    """The exchange that a rival may win."""

    @property
    def is_head_request(self) -> bool:
        """Whether its response has no body, whatever it says."""

    def adopt(self, endpoint: Endpoint, connection: UpstreamConnection) -> None:
        """Go on with this connection; whatever else was under way is given up."""


class HedgeReferee(Protocol):
    """Who decides."""

    def hedge_responded(self, status: int) -> bool:
        """Whether a response with this status is the one that counts."""

    def hedge_failed(self, error: UpstreamError) -> None:
        """There will be no response."""


class HedgedAttempt:
    """A second try of an exchange (`ResponseSink`)."""

    def __init__(
        self, exchange: HedgedExchange, attempts: HedgeReferee, endpoint: Endpoint, head: bytes
    ) -> None:
        self._exchange = exchange
        self._attempts = attempts
        self._endpoint = endpoint
        self._head = head
        self._connection: UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_won = False

    def start(self) -> None:
        """Send the request on an idle connection, or on a new one."""
        connection = self._endpoint.take_idle()
        if connection is None:
            self._task = asyncio.get_running_loop().create_task(self._dial())
        else:
            self._send(connection)

    async def _dial(self) -> None:
        try:
            connection = await self._endpoint.connect()
        except UpstreamError as error:
            self._task = None
            self._attempts.hedge_failed(error)
            return
        self._task = None
        self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.begin(self, is_head_request=self._exchange.is_head_request)
        connection.write(self._head)
        connection.await_head(self._endpoint.timeouts.response_head_s)

    def abandon(self) -> None:
        """The other was first."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _wins(self, status: int) -> bool:
        if self._has_won:
            return True
        connection = self._connection
        if connection is None:
            return False
        if not self._attempts.hedge_responded(status):
            self._endpoint.responded(status)
            self.abandon()
            return False
        self._has_won = True
        self._exchange.adopt(self._endpoint, connection)
        return True

    # The connection calls these.

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """See `ResponseSink`, as the others."""
        if self._wins(head.status):
            self._exchange.whole(head, body)

    def head(self, head: ResponseHead) -> None:
        """..."""
        if self._wins(head.status):
            self._exchange.head(head)

    def interim(self, head: ResponseHead) -> None:
        """Not passed on: nobody knows yet whose response counts."""

    def body(self, piece: bytes) -> None:
        """..."""
        if self._has_won:
            self._exchange.body(piece)

    def flush(self) -> None:
        """..."""
        if self._has_won:
            self._exchange.flush()

    def end(self) -> None:
        """..."""
        if self._has_won:
            self._exchange.end()

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """A 101 that nobody asked for: the exchange refuses it."""
        if self._wins(head.status):
            self._exchange.switched(head, rest)

    def fail(self, error: UpstreamError) -> None:
        """..."""
        if self._has_won:
            self._exchange.fail(error)
        else:
            self._connection = None
            self._endpoint.failed()
            self._attempts.hedge_failed(error)

    def upstream_writable(self) -> None:
        """Nothing more is written."""
