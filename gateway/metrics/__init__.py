"""Counts events and exports them for Prometheus.

    counts.py      plain counts, for what every request touches
    requests.py    requests in flight, by route, by client
    registry.py    metrics of prometheus-client, for what is rare; the page of all
    data_plane.py  connections, requests, upstreams, decisions about tokens
    provider.py    clients, tokens, sign-ins
    store.py       operations of the store, changes that others made
    acme.py        certificates by ACME
    process.py     configuration, certificates, workers, the event loop

No label is unbounded: routes, upstreams and targets are named by the configuration,
methods by RFC 9110 (others are `_OTHER`), results by this code. Client ids, paths and
tokens are never labels.

With several workers each has a registry of its own, and `gateway.workers.snapshots` makes
one page of them: it adds up, except for gauges whose name says that a sum means nothing
(`_up`: the lowest counts).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar

from gateway.metrics.acme import AcmeMetrics
from gateway.metrics.counts import DURATION_BUCKETS_S, Clock, Histogram, Tally
from gateway.metrics.data_plane import DataPlaneMetrics
from gateway.metrics.process import ProcessMetrics
from gateway.metrics.provider import ProviderMetrics
from gateway.metrics.registry import Registry, render
from gateway.metrics.requests import RouteMetrics
from gateway.metrics.store import StoreMetrics

__all__ = ["DURATION_BUCKETS_S", "Clock", "DataPlaneMetrics", "Histogram", "Metrics",
           "RouteMetrics", "Tally", "render"]  # fmt: skip


Read = TypeVar("Read")


class Metrics:
    """Every metric of one process, by what it is about."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.data_plane = DataPlaneMetrics(self.registry)
        self.provider = ProviderMetrics(self.registry)
        self.store = StoreMetrics(self.registry)
        self.acme = AcmeMetrics(self.registry)
        self.process = ProcessMetrics(self.registry)

    def render(self, *, openmetrics: bool = False, names: Collection[str] = ()) -> bytes:
        """The page; see `render`."""
        return render(self.registry, openmetrics=openmetrics, names=names)

    async def read_in_thread(self, read: Callable[[], Read]) -> Read:
        """Call what reads all metrics where it does not hold up the event loop: there may be
        thousands of routes."""
        self.process.loop = asyncio.get_running_loop()
        return await asyncio.to_thread(read)
