"""Give the HTTP/2 engine what has come from an upstream, a little in each turn of the loop.

A piece is all of a read, unless that has very many frames. The rest waits for the turns to come,
and the socket is not read meanwhile. The engine has all that was read before a connection is lost.

What the engine passes over without a report is paid from a budget of bytes.

RFC 9113 sections 4.1 (frames), 10.5 (denial of service).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.http.h2 import ENHANCE_YOUR_CALM, H2Error
from gateway.http.h2_engine import H2Engine
from gateway.http.h2_pieces import Pieces
from gateway.upstream.h2_limits import make_ignored

FRAMES_PER_PIECE = 256
"""As many take less than a millisecond. More of a body's fit no read, unless they are small."""


class MultiplexedIntake:
    """The way of what has come to the engine."""

    __slots__ = ("_engine", "_is_paused", "_is_stopped", "_loop", "_pieces", "_take",
                 "ignored", "is_waiting", "transport")  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, engine: H2Engine, take: Callable[[bytes], None]
    ) -> None:
        """`take` is called without bytes when it is time for the rest, and calls `give` so."""
        self._loop = loop
        self._engine = engine
        self._take: Callable[[bytes], None] | None = take
        self._pieces = Pieces(max_frames=FRAMES_PER_PIECE)
        self._is_paused = False
        self._is_stopped = False
        self.ignored = make_ignored(loop)
        self.is_waiting = False
        """Whether `take` is due."""
        self.transport: asyncio.Transport | None = None

    def give(self, data: bytes) -> None:
        """Give bytes to the engine, now or later. Raises `H2Error`."""
        if self._is_stopped:
            return
        pieces = self._pieces
        pieces.add(data)
        if self.is_waiting:
            return
        piece = pieces.take()
        # First of all: where a stream fails, those that come after it do not wait for ever.
        if pieces.has_more:
            self._wait()
        elif self._is_paused:
            self._resume()
        if piece:
            events = self._engine.receive(piece)
            if not self.ignored.pay(len(piece), events) and not self._has_stopped():
                raise H2Error(ENHANCE_YOUR_CALM, "a flood of frames that mean nothing")

    def stop(self) -> None:
        """Give the engine nothing more."""
        self._is_stopped = True
        self._pieces.clear()

    def close(self) -> None:
        """Let go of the connection, which is lost: what refers to each other is freed late."""
        self.stop()
        self._take = None

    def _has_stopped(self) -> bool:
        return self._is_stopped

    def _wait(self) -> None:
        self.is_waiting = True
        self._loop.call_soon(self._continue)
        transport = self.transport
        if not self._is_paused and transport is not None and not transport.is_closing():
            self._is_paused = True
            transport.pause_reading()

    def _continue(self) -> None:
        self.is_waiting = False
        if self._take is not None:
            self._take(b"")

    def _resume(self) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._is_paused = False
            transport.resume_reading()
