"""Turns of work that clients cause: a little in each turn of the event loop, of all connections.

A client that pipelines has sent its next request when a response is complete, and one that speaks
HTTP/2 sends hundreds of requests, or of frames that are cheap to make, in one write. If all that
was worked off immediately, a few such clients would make each turn of the loop long, and a request
of another client takes several turns. So requests that came ahead wait in line. What has just come
does not wait for them, as long as its own share of the turn lasts.

The unit of work is a request: some 0.05 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

WORK_PER_TURN = 6.0
"""For those in line, and the same for what has just come: together less than a millisecond."""
H2_WORK = 2.0
"""Of a connection that turns out to speak HTTP/2."""
PIECE_BYTES = 16 * 1024
"""Of what a client sends ahead, as much is looked at for a next request at a time."""
MUCH_BYTES = 16 * 1024
"""Of a read that is thrown away: what comes next has to wait."""
PAUSE_S = 0.02
"""For so long."""


class Turns:
    """The connections that have received more, in the order in which they go on."""

    def __init__(self) -> None:
        self._waiting: dict[Callable[[], None], None] = {}
        self._is_scheduled = False
        self._left = WORK_PER_TURN

    def may_begin(self) -> bool:
        """Whether something that has just come may begin; else it has to `wait`."""
        return self._left > 0

    def begin(self, work: float, later: Callable[[], None], *, is_due: bool) -> bool:
        """Spend work on something that has just come, or have `later` called; returns which.
        `is_due`: this is that call, and to wait again could be for ever."""
        is_now = is_due or self.may_begin()
        if is_now:
            self.spend(work)
        else:
            self.wait(later)
        return is_now

    def share(self) -> float:
        """Return how much work one connection may do now."""
        return max(self._left / (len(self._waiting) + 1), 1.0)

    def spend(self, work: float) -> None:
        """Note work that was done, besides that of a request for each call of a `go_on`."""
        self._left -= work
        if self._left <= 0:
            self._schedule()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on`, which begins at most one request, or spends what else it does, in a turn
        to come; once, however often it is given until then."""
        self._waiting[go_on] = None
        self._schedule()

    def discard(self, transport: asyncio.Transport | None, size: int) -> None:
        """Throw so many bytes away of a client whose connection is closing. One that sends much is
        read again after a pause: copying it is work, and so is its next connection."""
        if size > MUCH_BYTES and transport is not None and not transport.is_closing():
            transport.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE_S, _read_again, transport)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_scheduled = False
        self._left = WORK_PER_TURN
        waiting = self._waiting
        try:
            while waiting and self._left > 0:
                # Those that wait again meanwhile are last.
                go_on = next(iter(waiting))
                del waiting[go_on]
                self._left -= 1
                go_on()
        finally:  # one that fails does not hold up the others
            self._left = WORK_PER_TURN
            if waiting:
                self._schedule()


def _read_again(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.resume_reading()
