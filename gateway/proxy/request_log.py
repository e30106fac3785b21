"""Accounts for requests, each exactly once: metrics, spans and the access log."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random
from typing import Final

from gateway.access_log import FLUSH_BYTES, AccessLog, AccessRecord, Timestamps
from gateway.codec import IS_NATIVE, write_access_line
from gateway.downstream.request import Request
from gateway.downstream.stream import ClientStream
from gateway.metrics import Clock, Histogram, Metrics
from gateway.proxy.context import RequestContext
from gateway.proxy.exchange import Exchange
from gateway.proxy.tracing import Tracing

_FLUSH_BYTES: Final = FLUSH_BYTES
_write_access_line: Final = write_access_line  # as in `downstream.request`


class RequestLog:
    """Makes the contexts of requests, and takes them back when they are over."""

    def __init__(
        self,
        metrics: Metrics,
        access_log: AccessLog,
        *,
        timestamps: Timestamps | None = None,
        clock: Clock = time.monotonic,
        tracing: Tracing | None = None,
        chance: Callable[[], float] = random,
        checks: Histogram | None = None,
    ) -> None:
        """`checks`, for authorization checks only, takes how long they last."""
        self._counts = metrics.data_plane
        self._inflight = metrics.data_plane.inflight
        self._clients = metrics.data_plane.clients
        self._access_log = access_log
        self._timestamps = timestamps or Timestamps()
        self._wall_clock = self._timestamps.clock
        self._none = self._counts.route("_none")
        self._provider = self._counts.route("_provider")
        self._tracing = tracing
        self._chance = chance
        self._checks = checks
        self._sample = access_log.sample
        self._logs_user_agent = access_log.logs_user_agent
        # Without the codec, not even asked for each request.
        self._lines = access_log.lines if IS_NATIVE else None
        self.auth_decisions = self._counts.auth_decisions
        self.clock = clock

    def begin(self, stream: ClientStream, request: Request) -> RequestContext:
        """A request has come."""
        self._inflight.count += 1
        context = RequestContext(stream, request, self.clock())
        if self._tracing is not None:
            context.span = self._tracing.begin(request)
        return context

    def forwarded(self, context: RequestContext, exchange: Exchange[RequestContext]) -> None:
        """The exchange with the upstream ended, well or not."""
        upstream = context.upstream
        assert upstream is not None
        context.ended_at = self.clock()
        context.upstream_s = context.ended_at - context.sent_at
        upstream.durations.observe(context.upstream_s)
        context.bytes_in = exchange.bytes_received
        context.bytes_out = exchange.bytes_sent
        status = exchange.status
        if status:
            context.source = "upstream"
            context.status = status
            context.grpc_status = exchange.grpc_status
        if context.span is not None:
            context.span.forwarded(upstream.name, status, exchange.grpc_status)

    def finish(self, context: RequestContext) -> None:
        """Account for a request. Called exactly once for each."""
        if self._checks is not None:
            context.source = "authz"
            self._checks.observe(self.clock() - context.started)
        self._inflight.count -= 1
        request, route = context.request, context.route
        if route is not None:
            name, metrics = route.name, route.metrics
        elif context.is_providers:
            name, metrics = "_provider", self._provider
        else:
            name, metrics = "_none", self._none
        duration_s = (context.ended_at or self.clock()) - context.started
        metrics.record(request.method, context.status, context.source, duration_s)
        if context.client_id and route is not None:
            client = self._clients.counts.get(context.client_id)
            if client is None:
                client = self._clients.add(context.client_id)
            # Here, not in a method, which would cost as much again as all of this.
            client.requests += 1
            client.seconds += duration_s
            if context.status >= 400:
                client.record_error(context.status)
        if context.grpc_status >= 0:
            metrics.grpc_statuses[context.grpc_status] += 1
        span = context.span
        if span is not None:
            span.finish(
                request,
                route=name,
                path=route.path if route is not None else "",
                status=context.status,
                source=context.source,
                client_id=context.client_id,
                reason=context.reason,
                grpc_status=context.grpc_status,
            )
            if trace_id := span.sampled_trace_id:
                metrics.duration.exemplify(duration_s, trace_id)
        if context.reason:
            status = context.refused_status or context.status
            self._counts.refusals.count(
                name, status, context.reason, context.client_id, request.client
            )
        if self._sample < 1.0 and self._is_left_out(context):
            return
        self._write(context, name, duration_s)

    def _write(self, context: RequestContext, name: str, duration_s: float) -> None:
        """Write the line of a request to the access log; `name` is that of its route."""
        request = context.request
        # Named where its exchange ended, not where choosing an endpoint of it failed.
        upstream = context.upstream.name if context.upstream and context.ended_at else ""
        lines = self._lines
        if (
            lines is not None
            and not context.key_id
            and _write_access_line(
                lines,
                self._wall_clock(),
                request.client,
                request.method,
                request.target.path,
                name,
                context.status,
                context.source,
                duration_s,
                request.request_id,
                context.reason,
                context.client_id,
                upstream,
                context.upstream_s,
                context.bytes_in,
                context.bytes_out,
                context.grpc_status,
                "" if request.peer.protocol == "HTTP/1.1" else request.protocol,
            )
        ):
            if len(lines) >= _FLUSH_BYTES:
                self._access_log.flush()
            return
        record = AccessRecord(
            self._timestamps.now(),
            request.client,
            request.method,
            request.target.path,
            name,
            context.status,
            context.source,
            _milliseconds(duration_s),
            request.request_id.decode("ascii"),
            context.reason,
            context.client_id,
            upstream,
            _milliseconds(context.upstream_s) if upstream else None,
            context.bytes_in,
            context.bytes_out,
            context.grpc_status if context.grpc_status >= 0 else None,
        )
        if request.peer.protocol != "HTTP/1.1":
            record.protocol = request.protocol
        record.api_key = context.key_id
        if self._logs_user_agent:
            _describe_client(record, request)
        self._access_log.write(record)

    def _is_left_out(self, context: RequestContext) -> bool:
        """Whether sampling leaves a request out of the log. Failures are always logged."""
        is_sound = context.status < 400 and not context.reason and context.grpc_status <= 0
        return is_sound and self._chance() >= self._sample


def _describe_client(record: AccessRecord, request: Request) -> None:
    record.protocol = request.protocol
    for field, value in request.raw_headers:
        if field.lower() == b"user-agent":
            record.user_agent = value.decode("latin-1")
        elif field.lower() == b"referer":
            # Its query may hold secrets, as that of the request may.
            record.referer = value.decode("latin-1").partition("?")[0]


def _milliseconds(duration_s: float) -> float:
    """To three places, as `round` does, in a tenth of its time; durations are not negative."""
    return int(duration_s * 1e6 + 0.5) / 1000.0
