"""Rate limits that a worker asks its supervisor for."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from support.provider import Clock

from gateway.oauth.models import StoreUnavailableError
from gateway.rate_limit import Demand, LocalRateLimits, Quota, RateLimit, RateLimits
from gateway.workers import limits as rate_limit_module
from gateway.workers.limits import GroupRateLimits
from gateway.workers.messages import Acquire, Granted, Message

DEMAND = Demand("client:a", "", RateLimit(1, 3600.0, 5))


class Supervisor:
    """Counts for several workers, as long as it is there."""

    def __init__(self, workers: int) -> None:
        self.clock = Clock()
        self.workers = [
            GroupRateLimits(partial(self.receive, at), clock=self.clock) for at in range(workers)
        ]
        self.is_there = True
        self.requested = 0
        self._rates = LocalRateLimits(clock=self.clock)

    def receive(self, worker: int, message: Message) -> None:
        assert isinstance(message, Acquire)
        self.requested += 1
        if self.is_there:
            response = Granted(message.number, self._rates.acquire(message.demands))
            asyncio.get_running_loop().call_soon(self.workers[worker].receive, response)


async def test_limit_is_exact_over_all_workers() -> None:
    supervisor = Supervisor(3)
    quotas = await asyncio.gather(
        *(worker.acquire([DEMAND]) for worker in supervisor.workers for _ in range(4))
    )
    assert sum(quota.is_allowed for quota in quotas) == 5
    assert sorted(quota.remaining for quota in quotas if quota.is_allowed) == [0, 1, 2, 3, 4]


async def test_supervisor_that_does_not_respond_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit_module, "TIMEOUT_S", 0.01)
    supervisor = Supervisor(1)
    (worker,) = supervisor.workers
    supervisor.is_there = False
    results: list[str] = []
    limits = RateLimits(LocalRateLimits(), worker, count=results.append)
    assert limits.try_acquire([DEMAND]) is None
    assert (await limits.acquire([DEMAND])).is_allowed
    assert limits.try_acquire([DEMAND]) is not None, "nobody waits now"
    assert results == ["fallback", "allowed", "fallback", "allowed"]
    assert supervisor.requested == 1
    with pytest.raises(StoreUnavailableError):
        await worker.acquire([DEMAND])

    supervisor.is_there = True
    supervisor.clock.now += 1
    assert not worker.is_away
    assert (await limits.acquire([DEMAND])).remaining == 4


async def test_response_that_comes_too_late_is_dropped() -> None:
    supervisor = Supervisor(1)
    supervisor.workers[0].receive(Granted(7, Quota(True, 5, 4, 1)))
    assert (await supervisor.workers[0].acquire([DEMAND])).remaining == 4
