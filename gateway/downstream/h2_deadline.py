"""The deadline of a client's connection of HTTP/2 while it has no requests.

    no request ── keep-alive ── a frame, or a head, has begun ──► head
                      ▲                                            │
                      └── it is complete: what was left ───────────┘

No frame but that of a request wins time, and dribbling one does not either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.downstream.stream import ClientLimits
from gateway.http.deadline import AT_ONCE_S, Deadline


class H2Deadline(Deadline):
    """A deadline that knows what the client is expected to send next."""

    __slots__ = ("_idle_since", "is_head_due")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[], None]) -> None:
        super().__init__(loop, expire)
        self._idle_since = 0.0
        self.is_head_due = False
        """Whether it is that of a frame, or a head, that has begun."""

    def rest(self, limits: ClientLimits) -> None:
        """Expect the next request within the keep-alive time."""
        self.is_head_due = False
        self._idle_since = self._time()
        self.set(limits.keepalive_timeout_s)

    def expect(self, limits: ClientLimits, *, is_rest: bool) -> None:
        """Expect the rest of a frame, or of a head, in time, or no longer."""
        if is_rest == self.is_head_due:
            return
        self.is_head_due = is_rest
        keepalive_s = limits.keepalive_timeout_s
        if is_rest:
            self.set(limits.head_timeout_s)
        elif keepalive_s:
            self.set(max(keepalive_s - (self._time() - self._idle_since), AT_ONCE_S))
        else:
            self.clear()

    def clear(self) -> None:
        self.is_head_due = False
        super().clear()
