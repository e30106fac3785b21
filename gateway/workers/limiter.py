"""The limit on failed clients, kept by each process for the whole group.

Each process counts by itself and notifies the others, so the limit holds for all of them
after a few milliseconds; until then, each other worker may let one more attempt through.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Clock
from gateway.workers.messages import ClientFailed, ClientSucceeded, Message


class GroupLimiter(FailedClientLimiter):
    """A `FailedClientLimiter` that notifies other processes, and is notified by them."""

    def __init__(
        self,
        *,
        failures: int = 5,
        window_s: float = 600.0,
        announce: Callable[[Message], None],
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(failures=failures, window_s=window_s, clock=clock)
        self._announce = announce

    def fail(self, client_id: str, source: str) -> None:
        """Count a failed authentication, here and in the other processes."""
        super().fail(client_id, source)
        self._announce(ClientFailed(client_id, source))

    def succeed(self, client_id: str, source: str) -> bool:
        """Forget the failures of a pair, here and in the other processes."""
        had_failed = super().succeed(client_id, source)
        if had_failed:  # the usual case costs nothing
            self._announce(ClientSucceeded(client_id, source))
        return had_failed

    def receive(self, message: ClientFailed | ClientSucceeded) -> None:
        """Count what happened in another process."""
        if isinstance(message, ClientFailed):
            super().fail(message.client_id, message.source)
        else:
            super().succeed(message.client_id, message.source)
