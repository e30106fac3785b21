"""Takes samples of what one process counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from prometheus_client import Counter, Gauge

from gateway.history.breakdown import Counts, fold
from gateway.metrics import DURATION_BUCKETS_S, Histogram, Metrics
from gateway.metrics.requests import RouteMetrics

MAX_NAMES = 200
"""Of routes, and of clients, in one slice; the others are added up."""
BUCKETS = len(DURATION_BUCKETS_S) + 1
CLIENT_ERROR, SERVER_ERROR = 400, 500


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
    routes: Sequence[Counts] = ()
    """Those with a request, and `_provider` and `_none`."""
    clients: Sequence[Counts] = ()
    """Those with a request that a route matched."""


class Sampler:
    """Takes slices of the metrics of one process. Costs the request path nothing: it reads
    what is counted anyway."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._routes: dict[str, _RouteCounts] = {}
        self._upstreams: dict[str, tuple[Histogram, Sequence[int]]] = {}
        self._last = _Counts(metrics)
        self._take_routes()
        self._take_upstreams()
        metrics.data_plane.clients.take()

    def take(self) -> Slice:
        """Return what happened since the last slice."""
        metrics, last = self._metrics, self._last
        self._last = now = _Counts(metrics)
        routes, durations = self._take_routes()
        clients = [
            Counts(name, one.requests, one.rejected, one.failed, one.seconds)
            for name, one in metrics.data_plane.clients.take().items()
        ]
        return Slice(
            requests=sum(one.requests for one in routes),
            errors=sum(one.failed for one in routes),
            durations=durations,
            upstream_durations=self._take_upstreams(),
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
            routes=fold(routes, MAX_NAMES),
            clients=fold(clients, MAX_NAMES),
        )

    def _take_routes(self) -> tuple[list[Counts], list[int]]:
        """Return what each route did since the last slice, and how long all of them took. A route
        that a reload took away is left out; one of the same name starts from zero."""
        changed, durations = [], [0] * BUCKETS
        known, self._routes = self._routes, {}
        for name, route in self._metrics.data_plane.routes.copy().items():
            last = known.get(name)
            if last is None or last.route is not route:
                last = _RouteCounts(route)
            now = last.now()
            self._routes[name] = now
            if now is not last:
                changed.append(now.since(name, last))
                for bucket, count in enumerate(now.durations):
                    durations[bucket] += count - last.durations[bucket]
        return changed, durations

    def _take_upstreams(self) -> list[int]:
        """Return how long exchanges with upstreams took since the last slice."""
        durations = [0] * BUCKETS
        known, self._upstreams = self._upstreams, {}
        for name, histogram in self._metrics.data_plane.upstream_duration.copy().items():
            counts = tuple(histogram.counts)
            self._upstreams[name] = histogram, counts
            owner, last = known.get(name, (histogram, _NONE))
            if owner is not histogram:
                last = _NONE
            if counts != last:
                for bucket, count in enumerate(counts):
                    durations[bucket] += count - last[bucket]
        return durations


_NONE = (0,) * BUCKETS


class _RouteCounts:
    """The counters of a route at one moment."""

    __slots__ = ("durations", "failed", "rejected", "requests", "route", "seconds")

    def __init__(self, route: RouteMetrics) -> None:
        self.route = route
        self.requests = self.rejected = self.failed = 0
        self.seconds = 0.0
        self.durations: Sequence[int] = _NONE

    def now(self) -> _RouteCounts:
        """Read them again; returns itself where nothing has changed."""
        durations = tuple(self.route.duration.counts)
        if durations == self.durations:
            return self
        now = _RouteCounts(self.route)
        now.durations, now.seconds = durations, self.route.duration.total
        for (_, code, _), count in self.route.requests.copy().items():
            now.requests += count
            if code >= SERVER_ERROR:
                now.failed += count
            elif code >= CLIENT_ERROR:
                now.rejected += count
        return now

    def since(self, name: str, last: _RouteCounts) -> Counts:
        """The difference."""
        return Counts(
            name, self.requests - last.requests, self.rejected - last.rejected,
            self.failed - last.failed, max(0.0, self.seconds - last.seconds),
        )  # fmt: skip


class _Counts:
    """The other counters of a process at one moment."""

    def __init__(self, metrics: Metrics) -> None:
        lookups: Mapping[str, int] = metrics.data_plane.token_cache_lookups
        self.cache_hits = lookups["hit"] + lookups["negative_hit"] + lookups["stale"]
        self.cache_lookups = sum(lookups.values())
        self.tokens_issued = int(_value(metrics.provider.tokens_issued))


def _value(metric: Counter | Gauge) -> float:
    """The sum over all label values."""
    return sum(
        sample.value
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    )
