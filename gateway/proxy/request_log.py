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


class RequestContext:
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

    def responded(self, status: int, reason: str) -> None:
        """The gateway made the response itself."""
        self.source = "gateway"
        self.status = status
        self.reason = reason

    @property
    def has_begun(self) -> bool:
        """Whether a response of the upstream is on its way to the client."""
        return self.source == "upstream"


class RequestLog:
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
        self._logs_user_agent = access_log.logs_user_agent
        self.auth_decisions = self._counts.auth_decisions
        self.clock = clock

    def begin(self, request: ClientRequest) -> None:
        """A request has come."""
        self._counts.inflight_requests += 1
        request.context = RequestContext(request, self.clock())
        if self._tracing is not None:
            request.span = self._tracing.begin(request)

    def forwarded(self, context: RequestContext, exchange: Exchange[ClientRequest]) -> None:
        """An exchange with an upstream ended, well or not."""
        assert context.route is not None
        upstream = context.chosen or context.route.upstream
        context.upstream = upstream.name
        context.ended_at = self.clock()
        context.upstream_s = context.ended_at - context.sent_at
        upstream.durations.observe(context.upstream_s)
        context.bytes_in = exchange.bytes_received
        context.bytes_out = exchange.bytes_sent
        if exchange.status:
            context.source = "upstream"
            context.status = exchange.status
        span = context.request.span
        if span is not None:
            span.forwarded(context)

    def finish(self, context: RequestContext) -> None:
        """Account for a request. Called exactly once for each."""
        self._counts.inflight_requests -= 1
        request, route = context.request, context.route
        if route is not None:
            name, metrics = route.name, route.metrics
        elif context.is_providers:
            name, metrics = "_provider", self._provider
        else:
            name, metrics = "_none", self._none
        duration_s = (context.ended_at or self.clock()) - context.started
        metrics.record(request.method, context.status, context.source, duration_s)
        span = request.span
        if span is not None:
            span.finish(context, name)
            if trace_id := span.sampled_trace_id:
                metrics.duration.exemplify(duration_s, trace_id)
        if context.reason:
            self._counts.refusals.count(
                name, context.status, context.reason, context.client_id, request.client
            )
        is_sound = context.status < 400 and not context.reason
        # Failures are always told.
        if self._sample < 1.0 and is_sound and self._chance() >= self._sample:
            return
        record = AccessRecord(
            time=self._timestamps.now(),
            client=request.client,
            method=request.method,
            path=request.target.path,
            route=name,
            status=context.status,
            source=context.source,
            duration_ms=round(duration_s * 1000, 3),
            request_id=request.request_id.decode("ascii"),
            reason=context.reason,
            client_id=context.client_id,
            upstream=context.upstream,
            upstream_ms=round(context.upstream_s * 1000, 3) if context.upstream else None,
            bytes_in=context.bytes_in,
            bytes_out=context.bytes_out,
        )
        if self._logs_user_agent:
            record.protocol = "HTTP/1.0" if request.is_http_10 else "HTTP/1.1"
            for field, value in request.raw_headers:
                if field.lower() == b"user-agent":
                    record.user_agent = value.decode("latin-1")
                elif field.lower() == b"referer":
                    # Its query may hold secrets, as that of the request may.
                    record.referer = value.decode("latin-1").partition("?")[0]
        self._access_log.write(record)
