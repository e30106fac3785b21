"""Counts of requests: of those in flight, by route, and by client.

Apart from the other counts since it is compiled: every request touches all of it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from gateway.codec import count_request
from gateway.metrics.counts import Histogram

_count_request: Final = count_request  # as in `downstream.request`
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
"""RFC 9110 section 9.3 and RFC 5789. Any other method is counted as `_OTHER`."""


class InflightRequests:
    """How many requests are under way."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class ClientCounts:
    """The requests of one client since they were last taken."""

    __slots__ = ("failed", "rejected", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.rejected = 0
        """With a status from 400 to 499."""
        self.failed = 0
        """With a status from 500 on."""
        self.seconds = 0.0
        """Their durations, added up."""

    def record_error(self, status: int) -> None:
        """Count the status of a finished request, from 400 on."""
        if status >= 500:
            self.failed += 1
        else:
            self.rejected += 1


class Clients:
    """Requests by client since they were last taken: for the console, not for Prometheus, whose
    series would be without bound. What is not taken does not grow for ever."""

    MAX_CLIENTS = 1000

    def __init__(self) -> None:
        self.counts: dict[str, ClientCounts] = {}
        """Those that were added since they were last taken."""

    def add(self, client_id: str) -> ClientCounts:
        """The counts of a client that has none yet; of those above the limit, one for all."""
        if len(self.counts) >= self.MAX_CLIENTS:
            client_id = ""
        return self.counts.setdefault(client_id, ClientCounts())

    def take(self) -> dict[str, ClientCounts]:
        """By client id; the empty one stands for all above the limit."""
        taken, self.counts = self.counts, {}
        return taken


class RouteMetrics:
    """The counts of one route (or of one of the pseudo-routes `_provider` and `_none`)."""

    __slots__ = ("duration", "grpc_statuses", "requests")

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, int, str], int] = defaultdict(int)
        """By (method, status code, source), source being `gateway` or `upstream`."""
        self.duration = Histogram()
        self.grpc_statuses: defaultdict[int, int] = defaultdict(int)
        """Calls of gRPC, by their status."""

    def record(self, method: str, code: int, source: str, duration_s: float) -> None:
        """Count one finished request."""
        if not _count_request(self.requests, method, code, source):
            if method not in METHODS:
                method = "_OTHER"
            self.requests[method, code, source] += 1
        self.duration.observe(duration_s)
