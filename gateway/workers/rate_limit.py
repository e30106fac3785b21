"""Rate limits that the workers of one gateway share: the supervisor counts for all of them.

A connection lives in one worker, so no share of a limit would be right for a worker to
apply by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count

from gateway.oauth.models import Clock, StoreUnavailableError
from gateway.rate_limit import Demand, Quota
from gateway.workers.messages import Acquire, Granted, Message

TIMEOUT_S = 0.25
"""A request waits so long at most: a limit is not worth more."""
REST_S = 1.0
"""How long a supervisor that did not respond is not asked again."""


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
