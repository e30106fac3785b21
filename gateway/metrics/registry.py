"""Metrics of prometheus-client, for what happens rarely, and the page that has them all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from gateway.metrics.counts import DURATION_BUCKETS_S, Tally

# A second series for each counter, which Prometheus' text format has no use for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Registry(CollectorRegistry):
    """Makes metrics, whose names all begin with `gateway_`."""

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Make a counter."""
        return Counter(f"gateway_{name}", text, labels, registry=self)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Make a gauge."""
        return Gauge(f"gateway_{name}", text, labels, registry=self)

    def durations(self, name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
        """How long something takes, in seconds."""
        return Histogram(f"gateway_{name}", text, labels, buckets=DURATION_BUCKETS_S, registry=self)

    def tally(self, name: str, text: str, values: Sequence[str], *, label: str = "result") -> Tally:
        """A counter whose known values start at zero, which costs little to count."""
        tally = Tally(values)
        self.register(_TallyCollector(f"gateway_{name}", text, tally, label))
        return tally


class _TallyCollector(Collector):
    def __init__(self, name: str, text: str, tally: Tally, label: str) -> None:
        self._name = name
        self._text = text
        self._tally = tally
        self._label = label

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=[self._label])
        for value, count in tuple(self._tally.items()):
            family.add_metric([value], count)
        yield family


class OwnFamilies(Collector):
    """The families of a registry whose names begin with `gateway_`, for the registry of another
    application, which describes its process itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        return (one for one in self._registry.collect() if one.name.startswith("gateway_"))


class _Selected(CollectorRegistry):
    """Some metrics of a registry, as their families or samples are named."""

    def __init__(self, registry: CollectorRegistry, names: Collection[str]) -> None:
        super().__init__()
        self._all = registry
        self._chosen = names

    def collect(self) -> Iterator[Metric]:
        for metric in self._all.collect():
            if metric.name not in self._chosen:
                metric.samples = [one for one in metric.samples if one.name in self._chosen]
            if metric.samples:
                yield metric


def render(
    registry: CollectorRegistry, *, openmetrics: bool = False, names: Collection[str] = ()
) -> bytes:
    """The Prometheus text exposition format, version 0.0.4, or OpenMetrics, with exemplars. Where
    there are `names`, of families or samples, only those."""
    if names:
        registry = _Selected(registry, names)
    if openmetrics:
        page: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return page
    return generate_latest(registry)
