"""What the gateway counts, and how Prometheus reads it.

The request path must not pay for label look-ups and locks, so what every request
touches is a plain dict or list here (`Tally`, `Histogram`) and becomes a metric only
when it is scraped. What happens rarely uses prometheus-client as usual.

No label is unbounded: routes, upstreams and targets are named by the configuration,
methods by RFC 9110 (others are `_OTHER`), results by this code. Client ids, paths and
tokens are never labels.

With several workers each has a registry of its own, and `gateway.workers.snapshots` makes
one page of them: it adds up, except for gauges whose name says that a sum means nothing
(`_up`: the lowest counts).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from gateway import __version__

# A second series for each counter, which Prometheus' text format has no use for.
disable_created_metrics()  # type: ignore[no-untyped-call]

Clock = Callable[[], float]

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
"""RFC 9110 section 9.3 and RFC 5789. Any other method is counted as `_OTHER`."""

DURATION_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075,
    0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""OpenTelemetry's advice for HTTP durations, with sub-millisecond ones for the gateway itself."""

LABELS_OF_REQUESTS = ("route", "method", "code", "source")


class Histogram:
    """A histogram that costs one bisection to observe. Seconds."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float] = DURATION_BUCKETS_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        """By bucket, the last observation whose trace is recorded."""

    def observe(self, value: float) -> None:
        """Count one observation of `value` seconds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def exemplify(self, value: float, trace_id: str) -> None:
        """Name the trace of an observation (OpenMetrics section 4.7)."""
        at = bisect_left(self.bounds, value)
        self.exemplars[at] = Exemplar({"trace_id": trace_id}, value, round(time.time(), 3))

    def buckets(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Cumulative counts, as the exposition format wants them."""
        names = [*map(str, self.bounds), "+Inf"]
        told = list(zip(names, accumulate(self.counts), strict=True))
        return [
            (*bucket, self.exemplars[at]) if at in self.exemplars else bucket
            for at, bucket in enumerate(told)
        ]


class Tally(defaultdict[str, int]):
    """Counts by one label value: `tally["ok"] += 1`."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        # Known values start at zero, so that a rate() exists before the first event.
        super().__init__(int, dict.fromkeys(values, 0))


UPSTREAM_EVENTS = {
    "retries": ("reason", "Tries of a request after its first."),
    "ejections": ("reason", "Endpoints that were passed over because they failed."),
    "overflows": ("breaker", "Requests, connections and retries above a circuit breaker's limit."),
    "health_checks": ("result", "Active health checks."),
}
"""What is counted of an upstream beside its requests: the label, and what it tells."""


class Refusals:
    """Answers that the gateway made itself, since they were last taken: for people, not for
    Prometheus, which has them by status. What is not taken does not grow for ever."""

    MAX_KINDS = 1000

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int, str], tuple[int, str, str]] = {}

    def count(self, route: str, status: int, reason: str, client_id: str, address: str) -> None:
        """Count one; of those that are alike, the last client and address are kept."""
        kind = (route, status, reason)
        known = self._counts.get(kind)
        if known is not None:
            self._counts[kind] = (known[0] + 1, client_id, address)
        elif len(self._counts) < self.MAX_KINDS:
            self._counts[kind] = (1, client_id, address)

    def take(self) -> dict[tuple[str, int, str], tuple[int, str, str]]:
        """By (route, status, reason): how many, and client id and address of the last."""
        taken, self._counts = self._counts, {}
        return taken


class RouteMetrics:
    """The counts of one route (or of one of the pseudo-routes `_provider` and `_none`)."""

    __slots__ = ("duration", "requests")

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, int, str], int] = defaultdict(int)
        """By (method, status code, source), source being `gateway` or `upstream`."""
        self.duration = Histogram()

    def record(self, method: str, code: int, source: str, duration_s: float) -> None:
        """Count one finished request."""
        if method not in METHODS:
            method = "_OTHER"
        self.requests[method, code, source] += 1
        self.duration.observe(duration_s)


class Metrics:
    """Every metric of one process."""

    inflight_requests = 0
    is_store_up = True
    _leaving: Collection[tuple[str, str]] = ()
    """Routes and upstreams that the last reload took away."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        # The request path: plain counts, read by `_RequestPathCollector`.
        self.routes: dict[str, RouteMetrics] = {}
        self.upstream_duration: dict[str, Histogram] = {}
        self.upstream_events: dict[str, dict[str, Tally]] = {event: {} for event in UPSTREAM_EVENTS}
        self.refusals = Refusals()
        self.auth_decisions = Tally(
            ("ok", "missing", "malformed", "unknown", "expired", "scope", "client",
             "audience", "certificate", "proof", "store_unavailable")
        )  # fmt: skip
        self.token_cache_lookups = Tally(("hit", "miss", "negative_hit", "stale"))
        self.token_cache_entries: Callable[[], int] = lambda: 0
        self.mirror_requests: dict[tuple[str, str], int] = {}
        """Copies by route and result, of routes that have a mirror."""
        self.split_requests: dict[tuple[str, str], int] = {}
        """By route and upstream, of routes that are split."""
        self.authz_duration: Histogram | None = None
        """From a question in decision mode to its answer; None where nobody asks."""
        self.upstream_states: Callable[[], Iterable[Metric]] = tuple

        # The rest: rare enough for the library.
        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"gateway_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"gateway_{name}", text, labels, registry=self.registry)

        self.tokens_issued = counter("tokens_issued", "Access tokens issued.", ["grant"])
        self.token_errors = counter(
            "token_errors", "Refused token requests, by RFC 6749 error code.", ["error"]
        )
        self.authorization_codes = counter(
            "authorization_codes",
            "Authorization codes: issued, redeemed, and replayed ones.",
            ["result"],
        )
        self.sign_ins = counter("sign_ins", "Attempts of users to sign in.", ["result"])
        self.refresh_token_reuse = counter(
            "refresh_token_reuse",
            "Refresh tokens that were used after they had been replaced; each ended its family.",
        )
        self.tokens_purged = counter("tokens_purged", "Expired tokens removed from the store.")
        self.failed_client_limited = counter(
            "failed_client_limited",
            "Requests refused because a client failed to authenticate too often.",
        )
        self.clients = gauge("clients", "Registered clients, expired ones included.")
        self.clients_expired = gauge("clients_expired", "Clients whose registration has ended.")
        self.clients_expiring = gauge(
            "clients_expiring",
            "Clients whose registration ends within provider.client_expiry_warning.",
        )
        self.store_operation_seconds = PrometheusHistogram(
            "gateway_store_operation_seconds", "Duration of store operations.", ["operation"],
            buckets=DURATION_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.store_up = gauge("store_up", "Whether the last store operation was answered (1 or 0).")
        self.cache_invalidation_lag = PrometheusHistogram(
            "gateway_cache_invalidation_lag_seconds",
            "From a revocation in the store to the token being forgotten here.",
            buckets=DURATION_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.cache_sweeps = counter(
            "cache_sweeps", "Times the whole token cache was dropped, as changes may be missed."
        )
        self.rate_limit_decisions = Tally(("allowed", "limited", "fallback"))
        self.config_reloads = Tally(("ok", "error"))
        self.config_reload_succeeded = gauge(
            "config_last_reload_successful",
            "Whether the last load of the configuration succeeded (1 or 0).",
        )
        self.config_reload_time = gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration that serves was loaded.",
        )
        self.certificate_expiry = gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate in use ends.",
            ["certificate"],
        )
        self.config_hash = Info(
            "gateway_config_hash", "SHA-256 of the running configuration.", registry=self.registry
        )
        self.build = Info("gateway_build", "Version of the gateway.", registry=self.registry)
        self.event_loop_lag = PrometheusHistogram(
            "gateway_event_loop_lag_seconds", "How late the event loop ran a timer.",
            buckets=DURATION_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.access_log_dropped = counter(
            "access_log_dropped", "Access log lines dropped because the sink could not keep up."
        )
        self.connections = gauge("connections", "Open client connections.")
        self.connections_refused = Tally(
            ("max_connections", "max_connections_per_source", "proxy_protocol")
        )
        self.tls_failures = counter(
            "tls_handshake_failures", "Client connections whose TLS handshake came to nothing."
        )
        self.workers = gauge("workers", "Processes that serve requests now.")
        self.worker_restarts = counter(
            "worker_restarts", "Processes started in place of one that ended."
        )

        self.build.info({"version": __version__})

        self.registry.register(_RequestPathCollector(self))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def route(self, name: str) -> RouteMetrics:
        """The counts of the route called `name`, made at load time, never per request."""
        return self.routes.setdefault(name, RouteMetrics())

    def upstream(self, name: str) -> Histogram:
        """The durations of the upstream called `name`."""
        return self.upstream_duration.setdefault(name, Histogram())

    def store_answered(self, is_up: bool) -> None:
        """Whether the store answered an operation that has just ended."""
        self.is_store_up = is_up
        self.store_up.set(is_up)

    def name_only(self, routes: Collection[str], upstreams: Collection[str]) -> None:
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

    def certificates(self, expiries: Mapping[str, float]) -> None:
        """These certificates are in use now, and no others: their ends, Unix seconds."""
        self.certificate_expiry.clear()
        for name, end in expiries.items():
            self.certificate_expiry.labels(name).set(end)

    def render(self, *, openmetrics: bool = False) -> bytes:
        """The page; see `render`."""
        return render(self.registry, openmetrics=openmetrics)


def render(registry: CollectorRegistry, *, openmetrics: bool = False) -> bytes:
    """The Prometheus text exposition format, version 0.0.4, or OpenMetrics, with exemplars."""
    if openmetrics:
        page: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return page
    return generate_latest(registry)


class _RequestPathCollector(Collector):
    """Turns the plain counts of the request path into metric families at scrape time."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        requests = CounterMetricFamily(
            "gateway_requests",
            "Finished requests; source tells who made the answer.",
            labels=LABELS_OF_REQUESTS,
        )
        duration = HistogramMetricFamily(
            "gateway_request_duration_seconds",
            "From the request head to the last byte of the answer.",
            labels=["route"],
        )
        for name, route in metrics.routes.items():
            for (method, code, source), count in route.requests.items():
                requests.add_metric([name, method, str(code), source], count)
            duration.add_metric([name], route.duration.buckets(), route.duration.total)
        yield requests
        yield duration

        upstream = HistogramMetricFamily(
            "gateway_upstream_duration_seconds",
            "From the request being sent upstream to the end of the answer.",
            labels=["upstream"],
        )
        for name, histogram in metrics.upstream_duration.items():
            upstream.add_metric([name], histogram.buckets(), histogram.total)
        yield upstream
        for event, (label, text) in UPSTREAM_EVENTS.items():
            events = CounterMetricFamily(
                f"gateway_upstream_{event}", text, labels=["upstream", label]
            )
            for name, tally in metrics.upstream_events[event].items():
                for value, count in tally.items():
                    events.add_metric([name, value], count)
            yield events
        yield from metrics.upstream_states()
        split = CounterMetricFamily(
            "gateway_split_requests",
            "Requests of routes that are split, by the upstream that got them.",
            labels=["route", "upstream"],
        )
        for (name, upstream_name), count in metrics.split_requests.items():
            split.add_metric([name, upstream_name], count)
        yield split
        mirror = CounterMetricFamily(
            "gateway_mirror_requests",
            "Copies of requests for a mirror: sent, dropped as it was too slow, failed.",
            labels=["route", "result"],
        )
        for (name, result), count in metrics.mirror_requests.items():
            mirror.add_metric([name, result], count)
        yield mirror
        if metrics.authz_duration is not None:
            authz = metrics.authz_duration
            yield HistogramMetricFamily(
                "gateway_authz_duration_seconds",
                "From the question of another proxy to the decision.",
                buckets=authz.buckets(),
                sum_value=authz.total,
            )

        yield _counts("auth_decisions", "Bearer token decisions.", metrics.auth_decisions)
        yield _counts("token_cache_lookups", "Token cache look-ups.", metrics.token_cache_lookups)
        yield _counts(
            "connections_refused", "Client connections refused.", metrics.connections_refused,
            label="reason",
        )  # fmt: skip
        yield _counts("config_reloads", "Reloads of the configuration.", metrics.config_reloads)
        yield _counts(
            "rate_limit_decisions", "Requests counted against rate limits.",
            metrics.rate_limit_decisions,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "gateway_token_cache_entries",
            "Tokens in the cache.",
            value=metrics.token_cache_entries(),
        )
        yield GaugeMetricFamily(
            "gateway_inflight_requests",
            "Requests being answered now.",
            value=metrics.inflight_requests,
        )


def _counts(name: str, text: str, tally: Tally, *, label: str = "result") -> CounterMetricFamily:
    family = CounterMetricFamily(f"gateway_{name}", text, labels=[label])
    for result, count in tally.items():
        family.add_metric([result], count)
    return family
