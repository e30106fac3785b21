"""What became of a request, for metrics and the access log: told once, on every path."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random

from gateway.access_log import AccessLog, AccessRecord, Timestamps
from gateway.downstream.request import ClientRequest
from gateway.metrics import Clock, Metrics
from gateway.proxy.exchange import Exchange
from gateway.proxy.router import Route
from gateway.proxy.tracing import Tracing
from gateway.upstream.upstream import Upstream


class Outcome:
    """Filled in along the request path, in the order in which things become known."""

    # Not slots: most requests set few of these, and what is not set costs nothing here.
    route: Route | None = None
    chosen: Upstream | None = None
    """The upstream, where the route has several."""
    upstream = ""
    client_id = ""
    sent_at = 0.0
    """When the request was given to its upstream, on the recorder's clock."""
    ended_at = 0.0
    """When the upstream was done with it."""
    upstream_s = 0.0
    status = 0
    source = "gateway"
    reason = ""
    bytes_in = 0
    bytes_out = 0
    is_providers = False
    """Whether it went to one of the provider's own endpoints."""

    def __init__(self, request: ClientRequest, started: float) -> None:
        self.request = request
        self.started = started

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
        clock: Clock = time.monotonic,
        tracing: Tracing | None = None,
        chance: Callable[[], float] = random,
    ) -> None:
        self._counts = metrics.data_plane
        self._access_log = access_log
        self._timestamps = timestamps or Timestamps()
        self._none = self._counts.route("_none")
        self._provider = self._counts.route("_provider")
        self._tracing = tracing
        self._chance = chance
        self._sample = access_log.sample
        self._tells_agent = access_log.tells_agent
        self.auth_decisions = self._counts.auth_decisions
        self.clock = clock

    def begin(self, request: ClientRequest) -> None:
        """A request has come."""
        self._counts.inflight_requests += 1
        request.outcome = Outcome(request, self.clock())
        if self._tracing is not None:
            request.span = self._tracing.begin(request)

    def forwarded(self, outcome: Outcome, exchange: Exchange[ClientRequest]) -> None:
        """An exchange with an upstream ended, well or not."""
        assert outcome.route is not None
        upstream = outcome.chosen or outcome.route.upstream
        outcome.upstream = upstream.name
        outcome.ended_at = self.clock()
        outcome.upstream_s = outcome.ended_at - outcome.sent_at
        upstream.durations.observe(outcome.upstream_s)
        outcome.bytes_in = exchange.bytes_received
        outcome.bytes_out = exchange.bytes_sent
        if exchange.status:
            outcome.source = "upstream"
            outcome.status = exchange.status
        span = outcome.request.span
        if span is not None:
            span.forwarded(outcome)

    def finish(self, outcome: Outcome) -> None:
        """Account for a request. Called exactly once for each."""
        self._counts.inflight_requests -= 1
        request, route = outcome.request, outcome.route
        if route is not None:
            name, metrics = route.name, route.metrics
        elif outcome.is_providers:
            name, metrics = "_provider", self._provider
        else:
            name, metrics = "_none", self._none
        duration_s = (outcome.ended_at or self.clock()) - outcome.started
        metrics.record(request.method, outcome.status, outcome.source, duration_s)
        span = request.span
        if span is not None:
            span.finish(outcome, name)
            if trace_id := span.sampled_trace_id:
                metrics.duration.exemplify(duration_s, trace_id)
        if outcome.reason:
            self._counts.refusals.count(
                name, outcome.status, outcome.reason, outcome.client_id, request.client
            )
        is_sound = outcome.status < 400 and not outcome.reason
        # Failures are always told.
        if self._sample < 1.0 and is_sound and self._chance() >= self._sample:
            return
        record = AccessRecord(
            time=self._timestamps.now(),
            client=request.client,
            method=request.method,
            path=request.target.path,
            route=name,
            status=outcome.status,
            source=outcome.source,
            duration_ms=round(duration_s * 1000, 3),
            request_id=request.request_id.decode("ascii"),
            reason=outcome.reason,
            client_id=outcome.client_id,
            upstream=outcome.upstream,
            upstream_ms=round(outcome.upstream_s * 1000, 3) if outcome.upstream else None,
            bytes_in=outcome.bytes_in,
            bytes_out=outcome.bytes_out,
        )
        if self._tells_agent:
            record.protocol = "HTTP/1.0" if request.is_http_10 else "HTTP/1.1"
            for field, value in request.raw_headers:
                if field.lower() == b"user-agent":
                    record.user_agent = value.decode("latin-1")
                elif field.lower() == b"referer":
                    # Its query may hold secrets, as that of the request may.
                    record.referer = value.decode("latin-1").partition("?")[0]
        self._access_log.write(record)
