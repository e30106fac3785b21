"""Plain counts, for what every request touches.

The request path must not pay for label look-ups and locks, so these are dicts and lists,
which become metrics only when they are scraped.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client.samples import Exemplar

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
        cumulated = list(zip(names, accumulate(self.counts), strict=True))
        return [
            (*bucket, self.exemplars[at]) if at in self.exemplars else bucket
            for at, bucket in enumerate(cumulated)
        ]


class Tally(defaultdict[str, int]):
    """Counts by one label value: `tally["ok"] += 1`."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        # Known values start at zero, so that a rate() exists before the first event.
        super().__init__(int, dict.fromkeys(values, 0))


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
