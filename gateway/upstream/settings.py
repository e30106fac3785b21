"""Settings of an upstream: plain values, which the configuration reads from sections of the file.

A field is a key, without the unit at its end; its default is the key's, and the text below it
describes the key (`gateway schema`). Names and defaults are Envoy's, but where
`docs/reference/upstreams.md` says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field, Strict
from pydantic.json_schema import WithJsonSchema

from gateway.units import (
    READ_INT,
    Count,
    Duration,
    Int,
    Percent,
    PositiveDuration,
    PositiveInt,
)

Status = Annotated[Int, Field(ge=100, le=599)]


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """Deadlines towards an upstream; 0 is none."""

    connect_s: Duration = 3.0
    """Limit on connecting, TLS included; else 504."""
    response_head_s: Duration = 30.0
    """Limit from the end of the request to the response head; else 504."""
    per_try_s: Duration = 0.0
    """Limit on each attempt, from its start (with a body, from the body's end) to the response
    head; else a retry, or 504. 0 for none."""
    total_s: Duration = 0.0
    """Limit on all attempts together, to the end of the response; else 504, or the response is
    cut off. 0 for none."""
    idle_s: Duration = 60.0
    """Longest time without any byte in either direction."""
    keepalive_s: Duration = 60.0
    """How long an idle connection is kept open."""
    tunnel_s: Duration = 3600.0
    """Longest time without any byte on a WebSocket."""


@dataclass(frozen=True, slots=True)
class SlowStart:
    """How endpoints that are new, or back again, come to their share."""

    window_s: Duration = 0.0
    """How long a new endpoint takes to reach its full weight; 0 for immediately."""
    aggression: Annotated[float, Field(gt=0, strict=False), WithJsonSchema({"type": "number"})] = (
        1.0
    )
    """Shape of the growth: 1 is linear, more is faster at first."""
    min_weight_percent: Percent = 10
    """Percentage of its weight that a new endpoint starts with."""

    def factor(self, elapsed_s: float) -> float:
        """The part of its weight that an endpoint has so long after it began: Envoy's formula
        (`SlowStartConfig`), (time since start / window) ^ (1 / aggression)."""
        if elapsed_s >= self.window_s:
            return 1.0
        grown = max(0.0, elapsed_s / self.window_s) ** (1.0 / self.aggression)
        return float(max(self.min_weight_percent / 100.0, grown))


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """When endpoints that fail requests are ejected. A count of 0 is never."""

    consecutive_5xx: Count = 5
    """Consecutive failures or 5xx responses that eject an endpoint; 0 for never."""
    consecutive_gateway_failures: Count = 0
    """Consecutive failures, 502, 503 or 504 that eject an endpoint; 0 for never."""
    interval_s: PositiveDuration = 10.0
    """Each interval without an ejection reduces the count of ejections by one."""
    base_ejection_time_s: PositiveDuration = 30.0
    """Duration of the first ejection; the n-th lasts n times as long."""
    max_ejection_time_s: PositiveDuration = 300.0
    """Longest duration of an ejection."""
    max_ejection_percent: Percent = 10
    """Limit on the percentage of endpoints ejected at a time; one always may be, but never the
    last."""

    def may_eject(self, *, ejected: int, total: int) -> bool:
        """Whether one more than the `ejected` of `total` endpoints may go."""
        return ejected + 1 <= max(1, total * self.max_ejection_percent // 100)

    def ejection_s(self, count: int) -> float:
        """How long the ejection lasts that is an endpoint's `count`-th."""
        longest = max(self.max_ejection_time_s, self.base_ejection_time_s)
        return min(self.base_ejection_time_s * count, longest)


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """How much of an upstream may be used at once; shared out among `workers`."""

    max_connections: PositiveInt = 1024
    """Limit on open connections of the upstream; further requests wait for one."""
    max_pending_requests: PositiveInt = 1024
    """Limit on requests that wait for a connection; else 503."""
    max_requests: PositiveInt = 1024
    """Limit on requests in flight; else 503."""
    max_retries: Annotated[Int, Field(ge=0)] | None = None
    """Limit on retries in flight, in place of `retries.budget`."""

    def share(self, workers: int) -> CircuitBreaker:
        """The part of one of so many processes."""
        retries = self.max_retries
        return CircuitBreaker(
            max_connections=math.ceil(self.max_connections / workers),
            max_pending_requests=math.ceil(self.max_pending_requests / workers),
            max_requests=math.ceil(self.max_requests / workers),
            max_retries=None if retries is None else math.ceil(retries / workers),
        )


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause before a retry: drawn randomly, up to `base`, 3, 7, 15 times `base` ..."""

    base_s: PositiveDuration = 0.025
    """Longest pause before the first retry."""
    max_s: PositiveDuration = 0.25
    """Longest pause before any retry."""

    def pause_s(self, attempt: int, chance: float) -> float:
        """The pause before the retry number `attempt` (from 1), `chance` being in [0, 1)."""
        return float(min(self.base_s * (2**attempt - 1), self.max_s) * chance)


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many retries may be under way at once."""

    percent: Percent = 20
    """Retries in flight, as a percentage of the requests in flight."""
    min_concurrency: Count = 3
    """Number of retries that may always be in flight."""


@dataclass(frozen=True, slots=True)
class Retries:
    """Retries, on another endpoint if there is one."""

    attempts: Annotated[int, Strict(), Field(ge=0, le=10), READ_INT] = 1
    """Attempts after the first; 0 for none."""
    retry_on: Annotated[
        tuple[Literal["connect-failure", "reset", "gateway-error"], ...], Field(strict=False)
    ] = ("connect-failure",)
    """Failures to retry. `connect-failure`: no connection; `reset`: the connection ended, or a
    timeout passed, before a response; `gateway-error`: 502, 503 or 504."""
    statuses: Annotated[tuple[Status, ...], Field(strict=False)] = ()
    """Further response statuses to retry."""
    backoff: Backoff = field(default_factory=Backoff)
    """The pause before a retry."""
    budget: RetryBudget = field(default_factory=RetryBudget)
    """Retries under way at once."""

    def share(self, workers: int) -> Retries:
        """The part of one of so many processes."""
        least = math.ceil(self.budget.min_concurrency / workers)
        return replace(self, budget=replace(self.budget, min_concurrency=least))
