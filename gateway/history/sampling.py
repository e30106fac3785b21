"""Takes samples of what one process counts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from prometheus_client import Counter, Gauge

from gateway.metrics import DURATION_BUCKETS_S, Histogram, Metrics

BUCKETS = len(DURATION_BUCKETS_S) + 1
SERVER_ERROR = 500


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Responses that the gateway generated for one reason, on one route."""

    route: str
    status: int
    reason: str
    count: int
    client_id: str
    """Of the last of them, if known."""
    address: str
    """Of the last of them."""


class Slice(msgspec.Struct, frozen=True, array_like=True):
    """The difference of a process's counters between two samples."""

    requests: int = 0
    errors: int = 0
    """Responses of 500 and above, of upstreams and of the gateway."""
    durations: Sequence[int] = (0,) * BUCKETS
    """How many requests took how long, by the buckets of `DURATION_BUCKETS_S`."""
    upstream_durations: Sequence[int] = (0,) * BUCKETS
    cache_hits: int = 0
    cache_lookups: int = 0
    tokens_issued: int = 0
    refusals: Sequence[Refusal] = ()
    inflight: int = 0
    """Requests in flight at the end."""
    connections: int = 0
    """Client connections that were open then."""
    is_store_up: bool = True
    """Whether the store responded to the last operation."""
    is_store_writable: bool = True
    """Whether the store took the last write."""


class Sampler:
    """Takes slices of the metrics of one process. Costs the request path nothing: it reads
    what is counted anyway."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last = _Counts(metrics)

    def take(self) -> Slice:
        """Return what happened since the last slice."""
        metrics, last = self._metrics, self._last
        self._last = now = _Counts(metrics)
        return Slice(
            requests=now.requests - last.requests,
            errors=now.errors - last.errors,
            durations=_minus(now.durations, last.durations),
            upstream_durations=_minus(now.upstream_durations, last.upstream_durations),
            cache_hits=now.cache_hits - last.cache_hits,
            cache_lookups=now.cache_lookups - last.cache_lookups,
            tokens_issued=now.tokens_issued - last.tokens_issued,
            refusals=[
                Refusal(route, status, reason, *what)
                for (route, status, reason), what in metrics.data_plane.refusals.take().items()
            ],
            inflight=metrics.data_plane.inflight_requests,
            connections=int(_value(metrics.data_plane.connections)),
            is_store_up=metrics.store.is_up,
            is_store_writable=metrics.store.is_writable,
        )


class _Counts:
    """The counters of a process at one moment."""

    def __init__(self, metrics: Metrics) -> None:
        routes = list(metrics.data_plane.routes.values())
        self.requests = self.errors = 0
        for route in routes:
            for (_, code, _), count in route.requests.items():
                self.requests += count
                if code >= SERVER_ERROR:
                    self.errors += count
        self.durations = _add_up([route.duration for route in routes])
        self.upstream_durations = _add_up(list(metrics.data_plane.upstream_duration.values()))
        lookups = metrics.data_plane.token_cache_lookups
        self.cache_hits = lookups["hit"] + lookups["negative_hit"] + lookups["stale"]
        self.cache_lookups = sum(lookups.values())
        self.tokens_issued = int(_value(metrics.provider.tokens_issued))


def _add_up(histograms: Sequence[Histogram]) -> list[int]:
    if not histograms:
        return [0] * BUCKETS
    return [sum(column) for column in zip(*[each.counts for each in histograms], strict=True)]


def _value(metric: Counter | Gauge) -> float:
    """The sum over all label values."""
    return sum(
        sample.value
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    )


def _minus(now: Sequence[int], last: Sequence[int]) -> list[int]:
    return [one - other for one, other in zip(now, last, strict=True)]
