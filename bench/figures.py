"""Medians, ranges and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bench.results import H2Sample, Results, Sample, Steady


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with the least and the greatest of what it was taken from."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """The range as a share of the median: how far apart the rounds lie."""
        return (self.high - self.low) / self.median if self.median else 0.0


def summarise(values: Iterable[float]) -> Figure | None:
    """None where there is nothing to summarise."""
    kept = list(values)
    if not kept:
        return None
    return Figure(statistics.median(kept), min(kept), max(kept), len(kept))


def ratio(over: Mapping[int, float], under: Mapping[int, float]) -> Figure | None:
    """One divided by the other round by round, and only then summarised: what slowed the
    machine in a round slowed both. Rounds that lack either don't count."""
    return summarise(
        over[number] / under[number] for number in over if under.get(number, 0.0) > 0.0
    )


Take = Callable[[Sample], float]
TakeSteady = Callable[[Steady], float]


def by_round(
    results: Results, subject: str, workload: str, take: Take, *, is_repeat: bool = False
) -> dict[int, float]:
    """A figure of a subject's runs of wrk, by round."""
    return {
        sample.round: take(sample)
        for sample in results.samples
        if (sample.subject, sample.workload, sample.is_repeat) == (subject, workload, is_repeat)
    }


def steady_by_round(results: Results, subject: str, at: str, take: TakeSteady) -> dict[int, float]:
    """A figure of a subject's runs at a constant rate, by round."""
    return {
        run.round: take(run) for run in results.steady if (run.subject, run.at) == (subject, at)
    }


def h2_by_round(
    results: Results,
    subject: str,
    kind: str,
    shape: str,
    take: Callable[[H2Sample], float] = lambda sample: sample.cpu_us,
) -> dict[int, float]:
    """A figure of a subject's runs over HTTP/2, by round; CPU per request where none is named."""
    return {
        sample.round: take(sample)
        for sample in results.h2
        if (sample.subject, sample.kind, sample.shape) == (subject, kind, shape)
    }


def cpu_us(sample: Sample) -> float:
    """CPU per request, in microseconds."""
    return sample.cpu_us


def requests_per_s(sample: Sample) -> float:
    """Throughput."""
    return sample.requests_per_s


def bytes_per_s(sample: Sample) -> float:
    """Throughput."""
    return sample.bytes_per_s


def p99_us(run: Sample | Steady) -> float:
    """The latency that one in a hundred exceeds."""
    return run.p99_us


def noise(results: Results) -> Figure | None:
    """The reference's second time over its first, round by round: 1 on a quiet machine."""
    repeated = next((sample for sample in results.samples if sample.is_repeat), None)
    if repeated is None:
        return None
    return ratio(
        by_round(results, repeated.subject, repeated.workload, requests_per_s, is_repeat=True),
        by_round(results, repeated.subject, repeated.workload, requests_per_s),
    )
