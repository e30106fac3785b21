"""Give the HTTP/2 engine what has come from a client, a few requests in each turn of the loop.

A single read can hold a thousand requests of a few bytes each, or many more pieces of a body: other
connections would wait for all of them. So reads go to the engine in pieces, small ones while they
are full of requests; after some of either, the rest waits for the next turn, with the socket not
read meanwhile.

What the engine passes over without a report, such as DATA of a stream that is closed, costs a
client nothing else, so it is paid from a budget of bytes.

RFC 9113 section 10.5 (denial of service).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.downstream.h2_limits import (
    IGNORED_BYTES,
    IGNORED_REFILL_S,
    PER_FRAME_BYTES,
    H2Settings,
)
from gateway.http.h2 import DEFAULT_WINDOW, ENHANCE_YOUR_CALM, H2Error
from gateway.http.h2_budget import Budget
from gateway.http.h2_engine import H2Engine

REQUESTS_PER_TURN = 32
"""Some milliseconds of work."""
EVENTS_PER_TURN = 1024
"""The same, of anything but requests."""
MIN_PIECE_BYTES = 1024
"""Holds some 40 of the smallest requests."""
MAX_PIECE_BYTES = 16 * 1024
"""Budgets are looked at after each piece."""


class H2Intake:
    """The way of what has come to the engine."""

    __slots__ = ("_engine", "_ignored", "_is_stopped", "_loop", "_per_request", "_piece_bytes",
                 "_rest", "_take", "_waits", "data_bytes", "requests", "transport")  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: H2Engine,
        take: Callable[[bytes], None],
        settings: H2Settings,
        scale: int,
    ) -> None:
        """`take` is called with the rest in a later turn, and calls `give` with it; `scale` is how
        many clients this one stands for."""
        self._per_request = max(settings.initial_window, DEFAULT_WINDOW)
        """Bytes without a report: the head before its end, or a body after its stream was reset."""
        ignored = max(settings.connection_window, IGNORED_BYTES) * scale
        self._ignored = Budget(ignored, IGNORED_REFILL_S, loop.time())
        self._loop = loop
        self._engine = engine
        self._take = take
        self._piece_bytes = MIN_PIECE_BYTES
        self._rest = b""
        self._waits = False
        self._is_stopped = False
        self.transport: asyncio.Transport | None = None
        self.requests = 0
        """Counted by the connection, since the last piece."""
        self.data_bytes = 0
        """The same, of bodies."""

    def give(self, data: bytes) -> int:
        """Give bytes to the engine, now or later; returns how many events they made, at least one
        where they have to wait. Raises `H2Error`."""
        if self._waits:
            self._rest += data
            return 1
        at = events = requests = 0
        while at < len(data) and not self._has_stopped():
            piece = data[at : at + self._piece_bytes]
            at += len(piece)
            self.requests = self.data_bytes = 0
            reported = self._engine.receive(piece)
            events += reported
            if self.requests:
                requests += self.requests
                self._ignored.earn(self.requests * self._per_request)
            else:
                self._spend(len(piece) - self.data_bytes - reported * PER_FRAME_BYTES)
            if self.requests > REQUESTS_PER_TURN // 4:
                self._piece_bytes = MIN_PIECE_BYTES
            else:
                self._piece_bytes = min(2 * self._piece_bytes, MAX_PIECE_BYTES)
            is_enough = requests >= REQUESTS_PER_TURN or events >= EVENTS_PER_TURN
            if is_enough and at < len(data):
                self._wait(data[at:])
                break
        return events

    def _spend(self, ignored: int) -> None:
        if ignored < 0:
            self._ignored.earn(-ignored)  # of a frame that began in the pieces before
        elif not self._ignored.spend(self._loop.time(), ignored):
            raise H2Error(ENHANCE_YOUR_CALM, "too much that means nothing")

    def stop(self) -> None:
        """Give the engine nothing more."""
        self._is_stopped = True
        self._rest = b""

    def _has_stopped(self) -> bool:
        return self._is_stopped

    def _wait(self, rest: bytes) -> None:
        transport = self.transport
        if self._is_stopped or transport is None or transport.is_closing():
            return
        self._rest = rest
        self._waits = True
        transport.pause_reading()
        self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        rest, self._rest = self._rest, b""
        self._waits = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            if not self._is_stopped:
                self._take(rest)
