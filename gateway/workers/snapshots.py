"""One page of metrics for several processes.

Counters and histograms add up, and what a process counted stays when it ends, so they
never go backwards. Gauges of the living processes add up too, except where the name says
that a sum means nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from gateway.metrics import render
from gateway.workers.messages import MetricFamily

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""

CUMULATIVE = frozenset({"counter", "histogram", "summary"})
HIGHEST = "_longest_stall_seconds"
LOWEST = ("_up", "_writable", "_expiry_timestamp_seconds", "process_start_time_seconds")
"""Gauges that are as low as the lowest: one that is down counts, what ends first, and who
started first."""
SAME = ("_info",)
"""Gauges that are the same in every process."""


def take_snapshot(registry: CollectorRegistry) -> list[MetricFamily]:
    """The metrics of this process as they are now."""
    return [
        MetricFamily(
            metric.name,
            metric.type,
            metric.documentation,
            [(sample.name, sample.labels, float(sample.value)) for sample in metric.samples],
            [
                (at, dict(sample.exemplar.labels), sample.exemplar.value, sample.exemplar.timestamp)
                for at, sample in enumerate(metric.samples)
                if sample.exemplar is not None and isinstance(sample.exemplar.timestamp, float)
            ],
        )
        for metric in registry.collect()
    ]


class Totals:
    """Metrics that workers reported."""

    def __init__(self) -> None:
        self._latest: dict[int, list[MetricFamily]] = {}
        self._ended: dict[int, list[MetricFamily]] = {}
        """What the processes that were worker N before counted up to their end."""

    def update(self, worker: int, families: list[MetricFamily]) -> None:
        """Store the metrics that a worker reported."""
        self._latest[worker] = families

    def retire(self, worker: int) -> None:
        """The process that was this worker ended: only what it counted remains."""
        families = self._latest.pop(worker, [])
        counted = [family for family in families if family.kind in CUMULATIVE]
        self._ended[worker] = list(add_up([self._ended.get(worker, []), counted]))

    def render(
        self, own: CollectorRegistry, *, openmetrics: bool = False, names: Collection[str] = ()
    ) -> bytes:
        """The page: the supervisor's `own` metrics and those of all workers. Called in any
        thread."""
        everything = [take_snapshot(own), *self._ended.values(), *self._latest.values()]
        families = [*add_up(everything), *self._by_worker()]
        registry = CollectorRegistry()
        registry.register(_Page(families))
        return render(registry, openmetrics=openmetrics, names=names)

    def _by_worker(self) -> Iterator[MetricFamily]:
        """Metrics per worker, which show whether the workers share the load."""
        for name, kind, text, source in (
            ("worker_cpu_seconds", "counter", "CPU time of a worker.", "process_cpu_seconds"),
            (
                "worker_resident_memory_bytes",
                "gauge",
                "Resident memory of a worker.",
                "process_resident_memory_bytes",
            ),
            (
                "worker_connections",
                "gauge",
                "Open client connections of a worker.",
                "gateway_connections",
            ),
            (
                "worker_event_loop_tasks",
                "gauge",
                "Tasks of a worker that have not ended.",
                "gateway_event_loop_tasks",
            ),
        ):
            suffix = "_total" if kind == "counter" else ""
            yield MetricFamily(
                f"gateway_{name}",
                kind,
                text,
                [
                    (f"gateway_{name}{suffix}", {"worker": str(worker)}, value)
                    for worker in sorted(self._latest.keys() | self._ended.keys())
                    if (value := self._value(worker, source)) is not None
                ],
            )

    def _value(self, worker: int, name: str) -> float | None:
        families = [self._ended.get(worker, []), self._latest.get(worker, [])]
        for family in add_up([[f for f in part if f.name == name] for part in families]):
            return sum(value for _, _, value in family.samples)
        return None


def add_up(snapshots: Iterable[list[MetricFamily]]) -> Iterator[MetricFamily]:
    """The metrics of several processes as those of one."""
    families: dict[str, MetricFamily] = {}
    values: dict[str, dict[Key, float]] = {}
    exemplars: dict[str, dict[Key, Exemplar]] = {}
    for snapshot in snapshots:
        for family in snapshot:
            families.setdefault(family.name, family)
            known = values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                key = (name, tuple(labels.items()))
                known[key] = _join(family, known[key], value) if key in known else value
            for at, cumulated, value, when in family.exemplars:
                name, labels, _ = family.samples[at]
                key = (name, tuple(labels.items()))
                of_family = exemplars.setdefault(family.name, {})
                if key not in of_family or when >= float(of_family[key].timestamp or 0):
                    of_family[key] = Exemplar(cumulated, value, when)
    for name, family in families.items():
        samples = [
            (sample, dict(labels), value) for (sample, labels), value in values[name].items()
        ]
        reported_of = exemplars.get(name, {})
        yield MetricFamily(
            name,
            family.kind,
            family.text,
            samples,
            [
                (at, dict(exemplar.labels), exemplar.value, float(exemplar.timestamp or 0))
                for at, key in enumerate(values[name])
                if (exemplar := reported_of.get(key))
            ],
        )


def _join(family: MetricFamily, one: float, other: float) -> float:
    if family.kind == "info" or family.name.endswith(SAME):
        return other
    if family.kind == "gauge" and family.name.endswith(LOWEST):
        return min(one, other)
    if family.name.endswith(HIGHEST):
        return max(one, other)
    return one + other


class _Page(Collector):
    """Families as a registry wants them."""

    def __init__(self, families: Iterable[MetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind)
            exemplars = {
                at: Exemplar(labels, value, when) for at, labels, value, when in family.exemplars
            }
            for at, (name, labels, value) in enumerate(family.samples):
                metric.add_sample(name, labels, value, exemplar=exemplars.get(at))
            yield metric
