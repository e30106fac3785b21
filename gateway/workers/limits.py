"""Limits that the workers of one gateway share: on failed clients, and on rates.

Failed clients are counted by each process, which notifies the others, so the limit holds for
all of them after a few milliseconds; until then, each other worker may let one more attempt
through. Rates are counted by the supervisor for all: a connection lives in one worker, so no
share of a limit would be right for a worker to apply by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count

from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Clock, StoreUnavailableError
from gateway.rate_limit import Demand, Quota
from gateway.workers.messages import Acquire, ClientFailed, ClientSucceeded, Granted, Message

TIMEOUT_S = 0.25
"""A request waits so long at most: a limit is not worth more."""
REST_S = 1.0
"""How long a supervisor that did not respond is not asked again."""


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

    def fail(self, client_id: str, source: str, *, state: str = "") -> None:
        """Count a failed authentication, here and in the other processes."""
        super().fail(client_id, source, state=state)
        self._announce(ClientFailed(client_id, source, state))

    def succeed(self, client_id: str, source: str) -> bool:
        """Forget the failures of a pair, here and in the other processes."""
        had_failed = super().succeed(client_id, source)
        if had_failed:  # the usual case costs nothing
            self._announce(ClientSucceeded(client_id, source))
        return had_failed

    def receive(self, message: ClientFailed | ClientSucceeded) -> None:
        """Count what happened in another process."""
        if isinstance(message, ClientFailed):
            super().fail(message.client_id, message.source, state=message.state)
        else:
            super().succeed(message.client_id, message.source)


class GroupRateLimits:
    """Implements `gateway.rate_limit.SharedRateLimits` in a worker."""

    def __init__(self, report: Callable[[Message], None], *, clock: Clock = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Quota]] = {}
        self._rests_until = float("-inf")

    @property
    def is_away(self) -> bool:
        """Whether the supervisor has just left a request without a response."""
        return self._clock() < self._rests_until

    async def acquire(self, demands: Sequence[Demand]) -> Quota:
        """Count a request against all of the limits, or none. Raises
        `StoreUnavailableError`."""
        number = next(self._numbers)
        response: asyncio.Future[Quota] = asyncio.get_running_loop().create_future()
        self._waiting[number] = response
        self._report(Acquire(number, list(demands)))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await response
        except TimeoutError:
            self._rests_until = self._clock() + REST_S
            raise StoreUnavailableError("the supervisor does not respond") from None
        finally:
            del self._waiting[number]

    def receive(self, message: Granted) -> None:
        """The supervisor has counted a request."""
        response = self._waiting.get(message.number)
        if response is not None and not response.done():
            response.set_result(message.quota)
