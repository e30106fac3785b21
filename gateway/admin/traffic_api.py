"""The admin API of what the gateway did lately: as a whole, by route, and by client."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Literal, TypedDict

import msgspec

from gateway.admin.operations import Call, operation
from gateway.admin.status import (
    By,
    Count,
    GatewayStatus,
    Quantiles,
    Seconds,
    Share,
    describe_quantiles,
)
from gateway.history.breakdown import Counts
from gateway.history.spans import SPANS, Span
from gateway.oauth.models import Clock

SpanName = Literal["15m", "1h", "6h", "24h"]
Length = Annotated[float, msgspec.Meta(gt=0)]


class HistoryQuery(msgspec.Struct):
    """Which time."""

    range: SpanName = "15m"


class TrafficQuery(HistoryQuery):
    """Which time, and whose requests."""

    by: By = "route"


class TrafficOfOneQuery(TrafficQuery):
    """Which time, and the route or client."""

    name: str = ""


class HistoryStep(TypedDict):
    """Counts of some seconds; `time` is when they began. Null where nothing was."""

    time: str
    requests: Count
    errors: Count
    request_seconds: Quantiles
    upstream_seconds: Quantiles
    cache_hit_ratio: Share | None
    inflight_requests: Count
    tokens_issued: Count


class HistoryDescription(TypedDict):
    """The steps of a range, oldest first; there are none of the time before the start."""

    range: SpanName
    step_seconds: Length
    steps: list[HistoryStep]


class Requests(TypedDict):
    """Counts of requests, rejected (4xx) and failed (5xx) ones among them."""

    requests: Count
    rejected: Count
    failed: Count
    mean_seconds: Seconds | None


class Traffic(Requests):
    """The requests of a route or a client, rejected (4xx) and failed (5xx) ones among them."""

    name: str


class TrafficList(TypedDict):
    """Routes or clients, the busiest first; that without a name stands for all others."""

    range: SpanName
    by: By
    traffic: list[Traffic]


class TrafficStep(Requests):
    """The requests of some seconds; `time` is when they began."""

    time: str


class TrafficOfOne(TypedDict):
    """The requests of one route or client, oldest first."""

    range: SpanName
    by: By
    name: str
    step_seconds: Length
    steps: list[TrafficStep]


class TrafficApi:
    """The operations on the history."""

    def __init__(self, gateway_status: GatewayStatus, *, wall_clock: Clock = time.time) -> None:
        self._gateway_status = gateway_status
        self._wall_clock = wall_clock

    @operation("GET", "/api/v1/history")
    async def show_history(self, call: Call, query: HistoryQuery) -> HistoryDescription:
        """Show requests, durations and tokens over time."""
        span = SPANS[query.range]
        steps = self._gateway_status.recent.history.steps(span)
        return {
            "range": query.range,
            "step_seconds": span.step_s,
            "steps": [
                {
                    "time": at,
                    "requests": step.requests,
                    "errors": step.errors,
                    "request_seconds": describe_quantiles(step.quantile),
                    "upstream_seconds": describe_quantiles(step.upstream_quantile),
                    "cache_hit_ratio": step.hit_ratio,
                    "inflight_requests": step.inflight,
                    "tokens_issued": step.tokens_issued,
                }
                for at, step in zip(self._times(span), steps, strict=True)
                if step.is_known
            ],
        }

    @operation("GET", "/api/v1/traffic")
    async def list_traffic(self, call: Call, query: TrafficQuery) -> TrafficList:
        """List the requests of each route or client."""
        found = self._gateway_status.traffic(query.by).totals(SPANS[query.range])
        return {
            "range": query.range,
            "by": query.by,
            "traffic": [{"name": one.name, **_describe(one)} for one in found],
        }

    @operation("GET", "/api/v1/traffic/one")
    async def show_traffic(self, call: Call, query: TrafficOfOneQuery) -> TrafficOfOne:
        """Show the requests of one route or client over time."""
        span = SPANS[query.range]
        steps = self._gateway_status.traffic(query.by).steps(query.name, span)
        return {
            "range": query.range,
            "by": query.by,
            "name": query.name,
            "step_seconds": span.step_s,
            "steps": [
                {"time": at, **_describe(step)}
                for at, step in zip(self._times(span), steps, strict=True)
            ],
        }

    def _times(self, span: Span) -> list[str]:
        axis = self._gateway_status.recent.history.time_axis(span, self._wall_clock())
        return [datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") for at in axis.times]


def _describe(counts: Counts) -> Requests:
    return {
        "requests": counts.requests,
        "rejected": counts.rejected,
        "failed": counts.failed,
        "mean_seconds": counts.mean_s,
    }
