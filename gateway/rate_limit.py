"""Rate limits: so many requests in so much time, with a burst.

The generic cell rate algorithm (GCRA; ITU-T I.371), in its form as a leaky bucket: each
request fills the bucket of its key by one, which leaks all the time, and one that would
overflow it is refused. There are no windows, at whose border twice the limit could pass.
What a limit is and what is left of it is reported in the fields RateLimit-Limit, -Remaining
and -Reset (draft-ietf-httpapi-ratelimit-headers-07) and in Retry-After (RFC 9110 section
10.2.3).

Here is what one process needs; `rate_limit.py` of `gateway.store.redis` and of
`gateway.store.postgresql` share limits between replicas.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.addresses import source_of

Clock = Callable[[], float]

MAX_KEYS = 100_000
TOLERANCE = 1e-6
"""Of one request: rounding must not cost the last request of a burst."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`requests` per `per_s` seconds on average, and up to `burst` at once."""

    requests: int
    per_s: float
    burst: int

    @property
    def interval_s(self) -> float:
        """The cost of one request."""
        return self.per_s / self.requests


@dataclass(frozen=True, slots=True)
class Demand:
    """One request, counted against one limit."""

    subject: str
    """Whose requests are counted together: `client:ID`, `address:IP` or `route:NAME`."""
    scope: str
    """Where: the name of a route, or empty for everywhere."""
    limit: RateLimit


@dataclass(frozen=True, slots=True)
class Quota:
    """Whether a request may pass, and what is left for the next ones."""

    is_allowed: bool
    limit: int
    """Requests that can be made at once when none were made for a while."""
    remaining: int
    reset_s: int
    """Seconds, rounded up, after which `limit` can be made again."""
    retry_after_s: int = 0
    """Seconds, rounded up, after which one can be made again."""

    def fields(self) -> tuple[tuple[str, str], ...]:
        """Return the header fields that report it."""
        reported = (
            ("RateLimit-Limit", str(self.limit)),
            ("RateLimit-Remaining", str(self.remaining)),
            ("RateLimit-Reset", str(self.reset_s)),
        )
        return (
            reported if self.is_allowed else (*reported, ("Retry-After", str(self.retry_after_s)))
        )


def tightest(quotas: Sequence[Quota]) -> Quota:
    """Of several limits on one request, the one to report: that which refuses it for
    longest, or else that of which least is left."""
    return min(quotas, key=lambda quota: (quota.is_allowed, -quota.retry_after_s, quota.remaining))


class SharedRateLimits(Protocol):
    """Limits that a fleet shares."""

    @property
    def is_away(self) -> bool:
        """Whether it is known to be of no use now."""

    async def acquire(self, demands: Sequence[Demand]) -> Quota:
        """Count a request against all of the limits, or none. Raises
        `StoreUnavailableError`."""


class LocalRateLimits:
    """Limits of this process alone. Exact; never waits."""

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Clock = time.monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._buckets: OrderedDict[Demand, tuple[float, float]] = OrderedDict()
        """How full each is, and when it was; least recently used first. A limit that changes
        begins with an empty one: what fills the old may be too much for the new."""

    def __len__(self) -> int:
        return len(self._buckets)

    def acquire(self, demands: Sequence[Demand]) -> Quota:
        """Count a request against all of the limits, or against none where one refuses it."""
        now = self._clock()
        buckets = self._buckets
        levels = [_leak(demand.limit, buckets.get(demand), now) for demand in demands]
        quota = tightest(
            [decide(demand.limit, level) for demand, level in zip(demands, levels, strict=True)]
        )
        if quota.is_allowed:
            for demand, level in zip(demands, levels, strict=True):
                buckets[demand] = (level + 1, now)
                buckets.move_to_end(demand)
            self._make_room(now)
        return quota

    def _make_room(self, now: float) -> None:
        # An empty bucket is as good as none. At least two are looked at for each that is
        # added, so this keeps up; where all are in use, the least recently used one goes.
        for _ in range(2):
            demand, bucket = next(iter(self._buckets.items()))
            is_in_use = _leak(demand.limit, bucket, now) > 0
            if is_in_use and len(self._buckets) <= self._max_keys:
                break
            del self._buckets[demand]
            if not self._buckets:
                break


def _leak(limit: RateLimit, bucket: tuple[float, float] | None, now: float) -> float:
    if bucket is None:
        return 0.0
    level, at = bucket
    return max(0.0, level - (now - at) / limit.interval_s)


def decide(limit: RateLimit, level: float) -> Quota:
    """Whether a request fits into a bucket that is so full, and what is left."""
    free = limit.burst - level - 1
    if free < -TOLERANCE:
        empty_s, wait_s = level * limit.interval_s, -free * limit.interval_s
        return Quota(False, limit.burst, 0, _round_up(empty_s), max(1, _round_up(wait_s)))
    remaining = max(0, int(free + TOLERANCE))
    return Quota(True, limit.burst, remaining, _round_up((level + 1) * limit.interval_s))


def _round_up(seconds: float) -> int:
    return math.ceil(seconds - TOLERANCE)


class RateLimits:
    """Applies rate limits: shared ones where there are any, local ones otherwise."""

    def __init__(
        self,
        local: LocalRateLimits,
        shared: SharedRateLimits | None = None,
        *,
        count: Callable[[str], None] = lambda result: None,
    ) -> None:
        """`count` is called with the result of each operation: `allowed` or `limited`, or
        `fallback` besides."""
        self._local = local
        self._shared = shared
        self._count = count

    def try_acquire(self, demands: Sequence[Demand]) -> Quota | None:
        """Count a request without waiting; None where the response is to be awaited."""
        if self._shared is not None:
            if not self._shared.is_away:
                return None
            self._count("fallback")
        return self._counted(self._local.acquire(demands))

    async def acquire(self, demands: Sequence[Demand]) -> Quota:
        """Count a request. Raises nothing: while the shared limits are unavailable, each process
        applies them for itself."""
        if self._shared is None:
            return self._counted(self._local.acquire(demands))
        try:
            quota = await self._shared.acquire(demands)
        except Exception:
            self._count("fallback")
            quota = self._local.acquire(demands)
        return self._counted(quota)

    def _counted(self, quota: Quota) -> Quota:
        self._count("allowed" if quota.is_allowed else "limited")
        return quota


class RateRules:
    """Which limits a request counts against."""

    def __init__(self, per_client: RateLimit | None = None) -> None:
        self.per_client = per_client
        """The limit of each client that has none of its own."""

    def demands(
        self,
        *,
        route: str,
        route_limit: RateLimit | None,
        is_for_all: bool,
        client_id: str | None,
        client_limit: RateLimit | None,
        address: str,
    ) -> tuple[Demand, ...]:
        """The limits on a request of `client_id`, or of `address` where there is no token.

        `route_limit` is the route's own, for each client or (`is_for_all`) for all together;
        `client_limit` is the client's own, in place of the one that all clients have.
        """
        subject = f"client:{client_id}"
        if client_id is None:
            subject = f"address:{source_of(address)}"
        own = client_limit or self.per_client
        demands: tuple[Demand, ...] = ()
        if route_limit is not None:
            demands = (Demand(f"route:{route}" if is_for_all else subject, route, route_limit),)
        if own is not None:
            demands = (*demands, Demand(subject, "", own))
        return demands
