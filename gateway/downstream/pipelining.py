"""Turns of pipelined requests: a few in each turn of the event loop, over all connections.

A client that pipelines has sent its next request when a response is complete. If that was read
immediately, many such clients would make each turn of the loop long, and a request of another
client takes several turns. So requests that came ahead wait in line, and those that have just come
do not wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

REQUESTS_PER_TURN = 8
"""Of those that came ahead: about a millisecond of work."""


class PipelineTurns:
    """The connections that have received a next request, in the order in which they go on."""

    def __init__(self) -> None:
        self._waiting: dict[Callable[[], None], None] = {}
        self._is_scheduled = False

    def wait(self, read_on: Callable[[], None]) -> None:
        """Call `read_on`, which begins at most one request, in a turn to come; once, however often
        it is given until then."""
        self._waiting[read_on] = None
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_scheduled = False
        # Those that wait again meanwhile are last.
        turn = list(islice(self._waiting, REQUESTS_PER_TURN))
        try:
            for read_on in turn:
                del self._waiting[read_on]
                read_on()
        finally:  # one that fails does not hold up the others
            if self._waiting and not self._is_scheduled:
                self._is_scheduled = True
                asyncio.get_running_loop().call_soon(self._take_turn)
