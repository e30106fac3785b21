"""Metrics of the data plane."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Set

from prometheus_client.core import Metric

from gateway.metrics.collector import UPSTREAM_EVENTS, DataPlaneCollector
from gateway.metrics.counts import H2Counts, Histogram, Refusals, RouteMetrics, Tally
from gateway.metrics.registry import Registry


class DataPlaneMetrics:
    """Connections, requests, upstreams, and decisions about tokens and limits."""

    inflight_requests = 0
    _leaving: Collection[tuple[str, str]] = ()
    """Routes and upstreams that the last reload took away."""

    def __init__(self, registry: Registry) -> None:
        self.routes: dict[str, RouteMetrics] = {}
        self.refusals = Refusals()
        self.h2 = H2Counts()
        self.upstream_duration: dict[str, Histogram] = {}
        self.upstream_events: dict[str, dict[str, Tally]] = {event: {} for event in UPSTREAM_EVENTS}
        self.upstream_states: Callable[[], Iterable[Metric]] = tuple
        self.split_requests: dict[tuple[str, str], int] = {}
        """By route and upstream, of routes that are split."""
        self.mirror_requests: dict[tuple[str, str], int] = {}
        """Copies by route and result, of routes that have a mirror."""
        self.authz_duration: Histogram | None = None
        """Duration of authorization checks; None without external authorization."""
        self.token_cache_entries: Callable[[], int] = lambda: 0
        registry.register(DataPlaneCollector(self))

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
