"""Plain counts of the data plane become metric families when they are scraped.

They are read in a thread, while the event loop counts on and another thread that builds the next
configuration may add routes and upstreams: copies are gone through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.metrics.counts import Histogram, RouteMetrics, Tally

LABELS_OF_REQUESTS = ("route", "method", "code", "source")
UPSTREAM_EVENTS = {
    "retries": ("reason", "Tries of a request after its first."),
    "ejections": ("reason", "Endpoints that were passed over because they failed."),
    "overflows": ("breaker", "Requests, connections and retries above a circuit breaker's limit."),
    "health_checks": ("result", "Active health checks."),
}
"""What is counted of an upstream beside its requests: the label, and its help text."""


class DataPlaneCounts(Protocol):
    """The counts to export; `DataPlaneMetrics` describes it."""

    inflight_requests: int
    routes: dict[str, RouteMetrics]
    upstream_duration: dict[str, Histogram]
    upstream_events: dict[str, dict[str, Tally]]
    upstream_states: Callable[[], Iterable[Metric]]
    split_requests: dict[tuple[str, str], int]
    mirror_requests: dict[tuple[str, str], int]
    authz_duration: Histogram | None
    token_cache_entries: Callable[[], int]


class DataPlaneCollector(Collector):
    """Reads the counts of the data plane."""

    def __init__(self, counts: DataPlaneCounts) -> None:
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
    for name, route in routes.copy().items():
        for (method, code, source), count in route.requests.copy().items():
            requests.add_metric([name, method, str(code), source], count)
        if route.requests:  # no series of what was never used: there may be thousands
            duration.add_metric([name], route.duration.buckets(), route.duration.total)
    yield requests
    yield duration


def _of_upstreams(counts: DataPlaneCounts) -> Iterator[Metric]:
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


def _of_pairs(
    name: str, text: str, labels: tuple[str, str], counts: dict[tuple[str, str], int]
) -> Metric:
    family = CounterMetricFamily(f"gateway_{name}", text, labels=labels)
    for pair, count in counts.copy().items():
        family.add_metric(pair, count)
    return family
