"""Copies requests to another upstream, whose responses are dropped.

The copy has a connection of its own and can neither slow the request down nor fail it: what
the other upstream does not take in time is kept up to a bound, and then the copy is given up.
As with Envoy, its Host says so: `shop.example-shadow`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from random import random

from gateway.downstream.request import Request
from gateway.downstream.stream import BodySink, DiscardingStream
from gateway.http.errors import ProblemError
from gateway.http.fields import Trailers
from gateway.proxy.exchange import Exchange
from gateway.upstream.stream import UpstreamRequestHead
from gateway.upstream.upstream import Upstream

MAX_BUFFERED_BYTES = 256 * 1024
"""What is kept of a body that the mirror has not taken yet."""
LINGER_S = 10.0
"""How long the mirror may still respond when the client has its response."""
RESULTS = ("sent", "dropped", "failed")

Counts = MutableMapping[tuple[str, str], int]
"""Copies by route and result."""


class Mirror:
    """Makes the copies of a route's requests."""

    def __init__(
        self,
        route: str,
        upstream: Upstream,
        *,
        percent: float,
        max_in_flight: int,
        counts: Counts,
        chance: Callable[[], float] = random,
    ) -> None:
        self._route = route
        self._upstream = upstream
        self._share = percent / 100
        self._max_in_flight = max_in_flight
        self._counts = counts
        self._chance = chance
        self._in_flight = 0
        for result in RESULTS:
            counts.setdefault((route, result), 0)

    def copy(self, request: Request, client_id: str, head: UpstreamRequestHead) -> Shadow | None:
        """Send a copy, or don't. `head` is what the main upstream gets. Raises nothing.

        The body of the request must pass by `tap` of what is returned, and `request_over` be
        called when the request is over.
        """
        if request.is_websocket or request.head.upgrade or self._chance() >= self._share:
            return None
        if self._in_flight >= self._max_in_flight:
            self._count("dropped")
            return None
        self._in_flight += 1
        shadow = Shadow(request)
        upstream = self._upstream
        key = ""
        if upstream.hash_on:
            key = upstream.hash_key(client_id, request.client, request.head)
        try:
            endpoint = upstream.choose(key)
        except ProblemError:
            self._in_flight -= 1
            self._count("failed")
            return None
        exchange = Exchange(
            shadow,
            shadow,
            upstream=upstream,
            endpoint=endpoint,
            head=head.with_authority(shadow_authority(head.authority)),
            done=self._end,
            key=key,
        )
        exchange.start()
        return shadow

    def _end(self, exchange: Exchange[Shadow], error: ProblemError | None) -> None:
        self._in_flight -= 1
        shadow = exchange.caller
        shadow.over()
        self._count("dropped" if shadow.is_dropped else "failed" if error else "sent")

    def _count(self, result: str) -> None:
        self._counts[self._route, result] += 1


def shadow_authority(authority: bytes) -> bytes:
    """Mark an authority as a shadow's, before its port."""
    name, colon, port = authority.rpartition(b":")
    if not colon or b"]" in port:
        name, colon, port = authority, b"", b""
    return b"%b-shadow%b%b" % (name, colon, port)


class Shadow(DiscardingStream):
    """The client of a copy: it gives what the real one sends, and discards what it gets."""

    is_over = False
    is_dropped = False
    """Whether it was given up because the mirror did not keep up."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        # The body, as far as it has come and was not taken.
        self._sink: BodySink | None = None
        self._is_paused = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._trailers: Trailers = ()
        self._has_ended = not request.head.has_body
        self._timer: asyncio.TimerHandle | None = None

    # The real request's body comes by here.

    def tap(self, sink: BodySink) -> BodySink:
        """Stand between the body and `sink`."""
        return _Tap(self, sink)

    def take(self, piece: bytes) -> None:
        """A piece of the body."""
        if self.is_over:
            return
        if self._sink is not None and not self._is_paused:
            self._sink.take(piece)
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > MAX_BUFFERED_BYTES:
            self.is_dropped = True
            self._give_up()

    def end_of_body(self, trailers: Trailers = ()) -> None:
        """The body is complete."""
        self._trailers = trailers
        self._has_ended = True
        self._flush()

    def request_over(self) -> None:
        """The real request is over. With it ends a body that is not whole, and the patience
        with a mirror that is slow."""
        if self.is_over:
            return
        if not self._has_ended:
            self._give_up()
        else:
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._expire)

    def over(self) -> None:
        """The copy is over."""
        self.is_over = True
        self.owner = self._sink = None
        self._pieces.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.is_dropped = True
        self._give_up()

    def _give_up(self) -> None:
        if not self.is_over and self.owner is not None:
            self.owner.client_gone()

    def _flush(self) -> None:
        while self._pieces and self._sink is not None and not self._is_paused and not self.is_over:
            pieces, self._pieces, self._size = self._pieces, [], 0
            self._sink.take(b"".join(pieces))
        if self._has_ended and not self._pieces and self._sink is not None and not self.is_over:
            sink, self._sink = self._sink, None
            sink.end_of_body(self._trailers)

    # The exchange asks for these.

    def read_body(self, sink: BodySink) -> None:
        """Give what has come of the body to `sink`, and what will come."""
        self._sink = sink
        self._flush()

    def pause_body(self) -> None:
        """The mirror takes no more for now."""
        self._is_paused = True

    def resume_body(self) -> None:
        """The mirror takes bytes again."""
        self._is_paused = False
        self._flush()


class _Tap:
    """Shows a body to a shadow on its way (`BodySink`)."""

    def __init__(self, shadow: Shadow, sink: BodySink) -> None:
        self._shadow = shadow
        self._sink = sink

    def take(self, piece: bytes) -> None:
        self._sink.take(piece)
        self._shadow.take(piece)

    def end_of_body(self, trailers: Trailers = ()) -> None:
        self._sink.end_of_body(trailers)
        self._shadow.end_of_body(trailers)

    def body_failed(self, error: ProblemError) -> None:
        self._sink.body_failed(error)
