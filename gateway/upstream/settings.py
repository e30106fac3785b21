"""Settings of an upstream: plain values, which the configuration reads from sections of the file.

A field is a key, without the unit at its end; its default is the key's, and the text below it
describes the key (`gateway schema`). Names and defaults are Envoy's, but where
`docs/upstreams.md` says otherwise.
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
    """For a connection, TLS included, else 504."""
    response_head_s: Duration = 30.0
    """From the request being sent to the head of the response, else 504."""
    per_try_s: Duration = 0.0
    """For each try, from its begin (with a body, from its end) to the head of the response, else
    another try, or 504."""
    total_s: Duration = 0.0
    """For all tries, to the end of the response, else 504, or the response is cut."""
    idle_s: Duration = 60.0
    """The longest silence within an exchange."""
    keepalive_s: Duration = 60.0
    """How long an unused connection is kept."""
    tunnel_s: Duration = 3600.0
    """The longest silence within a WebSocket."""


@dataclass(frozen=True, slots=True)
class SlowStart:
    """How endpoints that are new, or back again, come to their share."""

    window_s: Duration = 0.0
    """How long that takes; 0 is at once."""
    aggression: Annotated[float, Field(gt=0, strict=False), WithJsonSchema({"type": "number"})] = (
        1.0
    )
    """1 grows evenly, more grows faster at first."""
    min_weight_percent: Percent = 10
    """The part of its weight to begin with."""

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
    """Failures or 5xx in a row that eject."""
    consecutive_gateway_failures: Count = 0
    """Failures, 502, 503 or 504 in a row that eject."""
    interval_s: PositiveDuration = 10.0
    """Each such time without an ejection forgives one."""
    base_ejection_time_s: PositiveDuration = 30.0
    """How long the first ejection lasts; the n-th, n times as long."""
    max_ejection_time_s: PositiveDuration = 300.0
    """The longest ejection."""
    max_ejection_percent: Percent = 10
    """Of endpoints ejected at once; one may always, but never the last."""

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
    """Open connections; more requests wait for one."""
    max_pending_requests: PositiveInt = 1024
    """Requests that wait for a connection, else 503."""
    max_requests: PositiveInt = 1024
    """Requests under way, else 503."""
    max_retries: Annotated[Int, Field(ge=0)] | None = None
    """Retries under way, in place of `retries.budget`."""

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
    """The pause before a retry: drawn by chance, up to `base`, 3, 7, 15 times `base` ..."""

    base_s: PositiveDuration = 0.025
    """The longest pause before the first retry."""
    max_s: PositiveDuration = 0.25
    """The longest pause of all."""

    def pause_s(self, attempt: int, chance: float) -> float:
        """The pause before the retry number `attempt` (from 1), `chance` being in [0, 1)."""
        return float(min(self.base_s * (2**attempt - 1), self.max_s) * chance)


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many retries may be under way at once."""

    percent: Percent = 20
    """Of the requests under way."""
    min_concurrency: Count = 3
    """So many in any case."""


@dataclass(frozen=True, slots=True)
class Retries:
    """What is tried again, on another endpoint if there is one."""

    attempts: Annotated[int, Strict(), Field(ge=0, le=10), READ_INT] = 1
    """Tries after the first; 0 is none."""
    retry_on: Annotated[
        tuple[Literal["connect-failure", "reset", "gateway-error"], ...], Field(strict=False)
    ] = ("connect-failure",)
    """What for. `connect-failure`: no connection; `reset`: it ended, or time ran out, before an
    answer; `gateway-error`: 502, 503 or 504."""
    statuses: Annotated[tuple[Status, ...], Field(strict=False)] = ()
    """Further statuses to try again on."""
    backoff: Backoff = field(default_factory=Backoff)
    """The pause before a retry."""
    budget: RetryBudget = field(default_factory=RetryBudget)
    """Retries under way at once."""

    def share(self, workers: int) -> Retries:
        """The part of one of so many processes."""
        least = math.ceil(self.budget.min_concurrency / workers)
        return replace(self, budget=replace(self.budget, min_concurrency=least))
