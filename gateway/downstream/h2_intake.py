"""Give the HTTP/2 engine what has come from a client, a little in each turn of the loop.

A single read can hold thousands of requests or frames: other connections would wait for all of
them. So reads go to the engine in pieces, which end behind a few requests, or some more frames of
other types; and what is more than the work of a turn (`Turns`) waits in line, with that of all
other connections. Once a client has sent enough ahead, the socket is not read meanwhile.

What the engine passes over without a report, such as DATA of a stream that is closed, costs a
client nothing else, so it is paid from a budget of bytes.

RFC 9113 sections 4.1 (frames), 10.5 (denial of service).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.downstream.h2_limits import PER_FRAME_BYTES, H2Settings
from gateway.downstream.turns import Turns
from gateway.http.h2 import DEFAULT_WINDOW, ENHANCE_YOUR_CALM, PREFACE, H2Error
from gateway.http.h2_budget import IGNORED_BYTES, IGNORED_REFILL_S, Budget, IgnoredBytes
from gateway.http.h2_engine import H2Engine
from gateway.http.h2_pieces import Pieces

REQUESTS_PER_PIECE = 2
FRAMES_PER_PIECE = 64
MAX_PIECE_BYTES = 16 * 1024
"""Budgets, and the work of the turn, are looked at after each piece."""
FRAMES_PER_REQUEST = 32
"""As many take as long as a request."""
BYTES_PER_REQUEST = 64 * 1024
"""The same, of bytes."""
LEAST_WORK = 0.25
"""Of a read, however small: something is written for it."""
MAX_WAITING_BYTES = 16 * 1024
"""What waits in line while the socket is read."""


class H2Intake:
    """The way of what has come to the engine."""

    __slots__ = ("_engine", "_is_paused", "_is_stopped", "_pieces", "_take", "_turns", "_waits",
                 "ignored", "requests", "transport")  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: H2Engine,
        take: Callable[[bytes], None],
        turns: Turns,
        *,
        settings: H2Settings,
        scale: int,
    ) -> None:
        """`take` is called without bytes when it is time for the rest, and calls `give` so; `scale`
        is how many clients this one stands for."""
        size = max(settings.connection_window, IGNORED_BYTES) * scale
        self.ignored = IgnoredBytes(
            Budget(size, IGNORED_REFILL_S, loop.time()),
            loop,
            per_request=max(settings.initial_window, DEFAULT_WINDOW),
            per_event=PER_FRAME_BYTES,
        )
        self._engine = engine
        self._take = take
        self._turns = turns
        self._pieces = Pieces(
            preface=len(PREFACE), max_frames=FRAMES_PER_PIECE, max_heads=REQUESTS_PER_PIECE,
            max_bytes=MAX_PIECE_BYTES,
        )  # fmt: skip
        self._waits = False
        self._is_paused = False
        self._is_stopped = False
        self.transport: asyncio.Transport | None = None
        self.requests = 0
        """Counted by the connection, since the last piece."""

    def give(self, data: bytes) -> None:
        """Give bytes to the engine, now or later. Raises `H2Error`."""
        pieces = self._pieces
        if data:
            pieces.add(data)
            if self._waits or not self._turns.may_begin():
                self._wait()
                return
        share, spent = self._turns.share(), LEAST_WORK
        while (piece := pieces.take()) and not self._has_stopped():
            self.requests = self.ignored.data_bytes = 0
            reported = self._engine.receive(piece)
            spent += pieces.heads + pieces.frames / FRAMES_PER_REQUEST
            spent += len(piece) / BYTES_PER_REQUEST
            if self.requests:
                self.ignored.earn(self.requests)
            elif not self.ignored.pay(len(piece), reported):
                raise H2Error(ENHANCE_YOUR_CALM, "too much that means nothing")
            if spent >= share:
                if pieces.has_more:
                    self._wait()
                break
        # In line, the work of a request was spent before.
        self._turns.spend(spent if data else spent - 1.0)

    @property
    def is_waiting(self) -> bool:
        """Whether something that has come waits in line."""
        return self._waits

    @property
    def lacks_rest(self) -> bool:
        """Whether what has come ends within a frame, or within a head."""
        return self._pieces.lacks_rest

    def stop(self) -> int:
        """Give the engine nothing more; the socket is read. Returns how many bytes were left."""
        left = self._pieces.size
        self._take = _ignore
        self._is_stopped = True
        self._pieces.clear()
        self._resume()
        return left

    def _has_stopped(self) -> bool:
        return self._is_stopped

    def _wait(self) -> None:
        transport = self.transport
        if self._is_stopped or transport is None or transport.is_closing():
            return
        if not self._is_paused and self._pieces.size > MAX_WAITING_BYTES:
            self._is_paused = True
            transport.pause_reading()
        if not self._waits:
            self._waits = True
            self._turns.wait(self._continue)

    def _continue(self) -> None:
        self._waits = False
        if not self._is_stopped:
            try:
                self._take(b"")
            except BaseException:  # as asyncio does where `data_received` raises: events are lost
                self._abort()
                raise
            if self._pieces.size <= MAX_WAITING_BYTES:
                self._resume()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        self.stop()

    def _resume(self) -> None:
        transport = self.transport
        if self._is_paused and transport is not None and not transport.is_closing():
            self._is_paused = False
            transport.resume_reading()


def _ignore(data: bytes) -> None:
    pass
