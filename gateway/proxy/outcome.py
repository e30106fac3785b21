"""What became of a request, for metrics and the access log: told once, on every path."""

from __future__ import annotations

import time

from gateway.access_log import AccessLog, AccessRecord, Timestamps
from gateway.metrics import Clock, Metrics, RouteMetrics
from gateway.proxy.exchange import Exchange
from gateway.proxy.inbound import Inbound
from gateway.proxy.router import Route

CLIENT_CLOSED = 499
"""nginx's code for a client that went away before its answer; no such answer is sent."""


class Outcome:
    """Filled in along the request path, in the order in which things become known."""

    __slots__ = (
        "bytes_in", "bytes_out", "client", "client_id", "exchange", "method", "path", "reason",
        "request_id", "route", "route_metrics", "source", "started", "status", "upstream",
        "upstream_s",
    )  # fmt: skip

    def __init__(self, method: str, started: float, metrics: RouteMetrics) -> None:
        self.method = method
        self.started = started
        self.client = ""
        self.path = ""
        self.request_id = b""
        self.route = "_none"
        self.route_metrics = metrics
        self.client_id = ""
        self.upstream = ""
        self.upstream_s = 0.0
        self.exchange: Exchange | None = None
        self.status = 0
        self.source = "gateway"
        self.reason = ""
        self.bytes_in = 0
        self.bytes_out = 0

    def understood(self, inbound: Inbound) -> None:
        """The request could be read."""
        self.path = inbound.target.path
        self.request_id = inbound.request_id
        self.client = inbound.client

    def matched(self, route: Route) -> None:
        """A route takes it."""
        self.route = route.name
        self.route_metrics = route.metrics

    def forwarded(self, upstream: str, exchange: Exchange, duration_s: float) -> None:
        """An exchange with an upstream ended, well or not."""
        self.upstream = upstream
        self.upstream_s = duration_s
        self.bytes_in = exchange.bytes_received
        self.bytes_out = exchange.bytes_sent
        if exchange.status:
            self.source = "upstream"
            self.status = exchange.status

    def answered(self, status: int, reason: str) -> None:
        """The gateway made the answer itself."""
        self.source = "gateway"
        self.status = status
        self.reason = reason

    @property
    def has_begun(self) -> bool:
        """Whether an answer of the upstream is on its way to the client."""
        return self.source == "upstream"


class Recorder:
    """Begins and finishes outcomes."""

    def __init__(
        self,
        metrics: Metrics,
        access_log: AccessLog,
        *,
        timestamps: Timestamps | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._timestamps = timestamps or Timestamps()
        self._none = metrics.route("_none")
        self.provider = metrics.route("_provider")
        """The counts of the provider's own endpoints."""
        self.auth_decisions = metrics.auth_decisions
        self.clock = clock

    def begin(self, method: str) -> Outcome:
        """A request has come."""
        self._metrics.inflight_requests += 1
        return Outcome(method, self.clock(), self._none)

    def finish(self, outcome: Outcome) -> None:
        """Account for a request. Called exactly once for each."""
        self._metrics.inflight_requests -= 1
        duration_s = self.clock() - outcome.started
        outcome.route_metrics.record(outcome.method, outcome.status, outcome.source, duration_s)
        self._access_log.write(
            AccessRecord(
                time=self._timestamps.now(),
                client=outcome.client,
                method=outcome.method,
                path=outcome.path,
                route=outcome.route,
                status=outcome.status,
                source=outcome.source,
                duration_ms=round(duration_s * 1000, 3),
                request_id=outcome.request_id.decode("ascii"),
                reason=outcome.reason,
                client_id=outcome.client_id,
                upstream=outcome.upstream,
                upstream_ms=round(outcome.upstream_s * 1000, 3) if outcome.upstream else None,
                bytes_in=outcome.bytes_in,
                bytes_out=outcome.bytes_out,
            )
        )
