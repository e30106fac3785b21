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
_FRAME_HEAD_BYTES = 9
_HEADERS = 0x1


class H2Intake:
    """The way of what has come to the engine."""

    __slots__ = ("_at", "_engine", "_is_paused", "_is_stopped", "_left_of_frame", "_rest", "_take",
                 "_turns", "_waits", "_work", "ignored", "requests", "transport")  # fmt: skip

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
        self._rest = b""
        self._at = 0
        """Of the rest, what the engine has."""
        self._left_of_frame = len(PREFACE)
        """Bytes before the head of the next frame."""
        self._work = 0.0
        """Of the last piece."""
        self._waits = False
        self._is_paused = False
        self._is_stopped = False
        self.transport: asyncio.Transport | None = None
        self.requests = 0
        """Counted by the connection, since the last piece."""

    def give(self, data: bytes) -> int:
        """Give bytes to the engine, now or later; returns how many events they made, at least one
        where they have to wait. Raises `H2Error`."""
        if data:
            self._rest = data if self._at == len(self._rest) else self._rest[self._at :] + data
            self._at = 0
            if self._waits or not self._turns.may_begin():
                self._wait()
                return 1
        share, spent, events = self._turns.share(), LEAST_WORK, 0
        while (piece := self._next_piece()) and not self._has_stopped():
            self.requests = self.ignored.data_bytes = 0
            reported = self._engine.receive(piece)
            events += reported
            spent += self._work
            if self.requests:
                self.ignored.earn(self.requests)
            elif not self.ignored.pay(len(piece), reported):
                raise H2Error(ENHANCE_YOUR_CALM, "too much that means nothing")
            if spent >= share:
                if self._has_more():
                    self._wait()
                    events += 1
                break
        if not self._waits:  # else an idle connection would keep all of its last read
            self._rest, self._at = self._rest[self._at :], 0
        # In line, the work of a request was spent before.
        self._turns.spend(spent if data else spent - 1.0)
        return events

    @property
    def is_waiting(self) -> bool:
        """Whether something that has come waits in line."""
        return self._waits

    def _has_more(self) -> bool:
        """Whether the head of another frame has come, or more of one that has begun."""
        left = len(self._rest) - self._at
        return left >= _FRAME_HEAD_BYTES or (self._left_of_frame > 0 and left > 0)

    def _next_piece(self) -> bytes:
        """Return what the engine gets next; nothing where that is less than the head of a frame."""
        data, begin = self._rest, self._at
        size = len(data)
        last = min(size, begin + MAX_PIECE_BYTES)
        at = begin + self._left_of_frame
        requests = frames = 0
        while (
            at < last
            and at + _FRAME_HEAD_BYTES <= size
            and frames < FRAMES_PER_PIECE
            and requests < REQUESTS_PER_PIECE
        ):
            frames += 1
            if data[at + 3] == _HEADERS:
                requests += 1
            at += _FRAME_HEAD_BYTES + (data[at] << 16 | data[at + 1] << 8 | data[at + 2])
        end = min(at, last)
        self._at = end
        self._left_of_frame = at - end
        self._work = requests + frames / FRAMES_PER_REQUEST + (end - begin) / BYTES_PER_REQUEST
        return data if end - begin == size else data[begin:end]

    def stop(self) -> None:
        """Give the engine nothing more; the socket is read."""
        self._take = _ignore
        self._is_stopped = True
        self._rest = b""
        self._at = 0
        self._resume()

    def _has_stopped(self) -> bool:
        return self._is_stopped

    def _wait(self) -> None:
        transport = self.transport
        if self._is_stopped or transport is None or transport.is_closing():
            return
        if not self._is_paused and len(self._rest) - self._at > MAX_WAITING_BYTES:
            self._is_paused = True
            transport.pause_reading()
        if not self._waits:
            self._waits = True
            self._turns.wait(self._continue)

    def _continue(self) -> None:
        self._waits = False
        if not self._is_stopped:
            self._take(b"")
            if len(self._rest) - self._at <= MAX_WAITING_BYTES:
                self._resume()

    def _resume(self) -> None:
        transport = self.transport
        if self._is_paused and transport is not None and not transport.is_closing():
            self._is_paused = False
            transport.resume_reading()


def _ignore(data: bytes) -> None:
    pass
