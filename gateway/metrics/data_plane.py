"""Metrics of the data plane: plain counts, which become metric families when they are scraped.

They are read in a thread, while the event loop counts on and another thread that builds the next
configuration may add routes and upstreams: copies are gone through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Set

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.metrics.counts import H2Counts, Histogram, Refusals, Tally
from gateway.metrics.registry import Registry
from gateway.metrics.requests import Clients, InflightRequests, RouteMetrics

LABELS_OF_REQUESTS = ("route", "method", "code", "source")
UPSTREAM_EVENTS = {
    "retries": ("reason", "Tries of a request after its first."),
    "ejections": ("reason", "Endpoints that were passed over because they failed."),
    "overflows": ("breaker", "Requests, connections and retries above a circuit breaker's limit."),
    "health_checks": ("result", "Active health checks."),
}
"""What is counted of an upstream beside its requests: the label, and its help text."""


class DataPlaneMetrics:
    """Connections, requests, upstreams, and decisions about tokens and limits."""

    _leaving: Collection[tuple[str, str]] = ()
    """Routes and upstreams that the last reload took away."""

    def __init__(self, registry: Registry) -> None:
        self.inflight = InflightRequests()
        self.routes: dict[str, RouteMetrics] = {}
        self.refusals = Refusals()
        self.clients = Clients()
        self.h2 = H2Counts()
        self.upstream_duration: dict[str, Histogram] = {}
        self.upstream_events: dict[str, dict[str, Tally]] = {event: {} for event in UPSTREAM_EVENTS}
        self.upstream_states: Callable[[], Iterable[Metric]] = tuple
        self.split_requests: dict[tuple[str, str], int] = {}
        """By route and upstream, of routes that are split."""
        self.mirror_requests: dict[tuple[str, str], int] = {}
        """Copies by route and result, of routes that have a mirror."""
        self.mcp_calls: dict[tuple[str, str, str], int] = {}
        """Calls of tools by route, tool as the configuration names it, and result."""
        self.authz_duration: Histogram | None = None
        """Duration of authorization checks; None without external authorization."""
        self.token_cache_entries: Callable[[], int] = lambda: 0
        registry.register(_DataPlaneCollector(self))

        self.auth_decisions = registry.tally(
            "auth_decisions",
            "Bearer token decisions.",
            ("ok", "missing", "malformed", "unknown", "expired", "scope", "client",
             "audience", "certificate", "proof", "store_unavailable",
             "issuer_unavailable"),
        )  # fmt: skip
        self.token_cache_lookups = registry.tally(
            "token_cache_lookups",
            "Token cache look-ups.",
            ("hit", "miss", "negative_hit", "stale"),
        )
        self.rate_limit_decisions = registry.tally(
            "rate_limit_decisions",
            "Requests counted against rate limits.",
            ("allowed", "limited", "fallback"),
        )
        self.connections = registry.gauge("connections", "Open client connections.")
        self.connections_refused = registry.tally(
            "connections_refused",
            "Client connections refused.",
            ("max_connections", "max_connections_per_source", "proxy_protocol"),
            label="reason",
        )
        self.tls_failures = registry.counter(
            "tls_handshake_failures", "Client connections whose TLS handshake failed."
        )
        self.access_log_dropped = registry.counter(
            "access_log_dropped", "Access log lines dropped because the sink could not keep up."
        )

    @property
    def inflight_requests(self) -> int:
        """Requests under way."""
        return self.inflight.count

    def route(self, name: str) -> RouteMetrics:
        """The counts of the route called `name`, made at load time, never per request."""
        return self.routes.setdefault(name, RouteMetrics())

    def upstream(self, name: str) -> Histogram:
        """The durations of the upstream called `name`."""
        return self.upstream_duration.setdefault(name, Histogram())

    def name_only(self, routes: Set[str], upstreams: Set[str]) -> None:
        """Drop the series of what the configuration names no more: not those that go with this
        reload, whose last requests are still to be counted, but those that went before it."""
        gone = {("route", name) for name in self.routes if name[0] != "_" and name not in routes}
        gone |= {("upstream", name) for name in self.upstream_duration if name not in upstreams}
        for kind, name in gone.intersection(self._leaving):
            if kind == "route":
                del self.routes[name]
                continue
            del self.upstream_duration[name]
            for counts in self.upstream_events.values():
                counts.pop(name, None)
        self._leaving = gone

    def upstream_event(self, event: str, name: str, values: Iterable[str]) -> Tally:
        """The counts of one of `UPSTREAM_EVENTS` at the upstream called `name`."""
        return self.upstream_events[event].setdefault(name, Tally(values))


class _DataPlaneCollector(Collector):
    """Reads the counts of the data plane."""

    def __init__(self, counts: DataPlaneMetrics) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """The families."""
        counts = self._counts
        yield from _of_requests(counts.routes)
        yield from _of_upstreams(counts)
        yield _of_pairs(
            "split_requests",
            "Requests of routes that are split, by the upstream that got them.",
            ("route", "upstream"),
            counts.split_requests,
        )
        yield _of_pairs(
            "mirror_requests",
            "Copies of requests for a mirror: sent, dropped as it was too slow, failed.",
            ("route", "result"),
            counts.mirror_requests,
        )
        calls = CounterMetricFamily(
            "gateway_mcp_tool_calls",
            "Calls of tools of MCP servers: allowed, denied, or by a token without the scopes.",
            labels=("route", "tool", "result"),
        )
        for labels, count in counts.mcp_calls.copy().items():
            calls.add_metric(labels, count)
        yield calls
        if counts.authz_duration is not None:
            yield HistogramMetricFamily(
                "gateway_authz_duration_seconds",
                "From the question of another proxy to the decision.",
                buckets=counts.authz_duration.buckets(),
                sum_value=counts.authz_duration.total,
            )
        yield GaugeMetricFamily(
            "gateway_token_cache_entries",
            "Tokens in the cache.",
            value=counts.token_cache_entries(),
        )
        yield GaugeMetricFamily(
            "gateway_inflight_requests",
            "Requests in flight.",
            value=counts.inflight_requests,
        )
        yield from _of_h2(counts.h2)


def _of_requests(routes: dict[str, RouteMetrics]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "gateway_requests",
        "Finished requests; source is the origin of the response: gateway, upstream or authz.",
        labels=LABELS_OF_REQUESTS,
    )
    duration = HistogramMetricFamily(
        "gateway_request_duration_seconds",
        "From the request head to the last byte of the response.",
        labels=["route"],
    )
    calls = CounterMetricFamily(
        "gateway_grpc_calls",
        "Finished calls of gRPC that have a status, from the upstream or the gateway.",
        labels=["route", "grpc_status"],
    )
    for name, route in routes.copy().items():
        for (method, code, source), count in route.requests.copy().items():
            requests.add_metric([name, method, str(code), source], count)
        for grpc_status, count in route.grpc_statuses.copy().items():
            calls.add_metric([name, str(grpc_status)], count)
        if route.requests:  # no series of what was never used: there may be thousands
            duration.add_metric([name], route.duration.buckets(), route.duration.total)
    yield requests
    yield calls
    yield duration


def _of_upstreams(counts: DataPlaneMetrics) -> Iterator[Metric]:
    duration = HistogramMetricFamily(
        "gateway_upstream_duration_seconds",
        "From the request being sent upstream to the end of the response.",
        labels=["upstream"],
    )
    for name, histogram in counts.upstream_duration.copy().items():
        if any(histogram.counts):
            duration.add_metric([name], histogram.buckets(), histogram.total)
    yield duration
    for event, (label, text) in UPSTREAM_EVENTS.items():
        events = CounterMetricFamily(f"gateway_upstream_{event}", text, labels=["upstream", label])
        for name, tally in counts.upstream_events[event].copy().items():
            for value, count in tuple(tally.items()):
                events.add_metric([name, value], count)
        yield events
    yield from counts.upstream_states()


def _of_h2(counts: H2Counts) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "gateway_http2_connections",
        "Open client connections that speak HTTP/2.",
        value=counts.connections,
    )
    for name, label, text, tally in (
        ("resets", "by", "HTTP/2 streams broken off, by the client or the gateway.", counts.resets),
        (
            "errors",
            "reason",
            "Errors of HTTP/2 clients, of a stream or a connection.",
            counts.errors,
        ),
    ):
        family = CounterMetricFamily(f"gateway_http2_{name}", text, labels=[label])
        for value, count in tuple(tally.items()):
            family.add_metric([value], count)
        yield family


def _of_pairs(
    name: str, text: str, labels: tuple[str, str], counts: dict[tuple[str, str], int]
) -> Metric:
    family = CounterMetricFamily(f"gateway_{name}", text, labels=labels)
    for pair, count in counts.copy().items():
        family.add_metric(pair, count)
    return family
