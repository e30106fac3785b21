"""The last day of a gateway, all of its processes added up: in short steps of the last minutes, and
in longer ones of the last hours."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from gateway.history.breakdown import Breakdown
from gateway.history.events import Events
from gateway.history.sampling import BUCKETS, Slice
from gateway.history.spans import SHORTEST, SPANS, STEPS, Span, TimeAxis
from gateway.metrics import DURATION_BUCKETS_S

STEP_S = SHORTEST.step_s
OWN = 0
"""The number of the process that holds this; workers are numbered from 1."""


class Step:
    """Counts of some seconds."""

    __slots__ = (
        "cache_hits", "cache_lookups", "durations", "errors", "inflight", "is_known", "length_s",
        "missed_s", "number", "requests", "tokens_issued", "upstream_durations",
    )  # fmt: skip

    def __init__(self, number: int, length_s: float = STEP_S, *, is_known: bool = False) -> None:
        self.number = number
        """Counts steps on the clock of the ring."""
        self.length_s = length_s
        """Seconds of it that are over, and of which something was reported."""
        self.missed_s = 0.0
        """Seconds of it that were over before the first report."""
        self.is_known = is_known
        """Whether anything was reported of it: not of the time before the start."""
        self.requests = 0
        self.errors = 0
        self.durations = [0] * BUCKETS
        self.upstream_durations = [0] * BUCKETS
        self.cache_hits = 0
        self.cache_lookups = 0
        self.tokens_issued = 0
        self.inflight = 0
        """The largest number of requests seen in flight."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.length_s

    @property
    def error_share(self) -> float | None:
        """Share of the requests (0 to 1) whose response was 500 or above."""
        return self.errors / self.requests if self.requests else None

    @property
    def hit_ratio(self) -> float | None:
        """Share of the token lookups (0 to 1) that the cache served."""
        return self.cache_hits / self.cache_lookups if self.cache_lookups else None

    def quantile(self, q: float) -> float | None:
        """Seconds within which the share `q` of the requests was done."""
        return quantile(self.durations, q)

    def upstream_quantile(self, q: float) -> float | None:
        """The same for the exchanges with upstreams."""
        return quantile(self.upstream_durations, q)

    def add(self, part: Slice) -> None:
        """Count what happened in a process."""
        self.requests += part.requests
        self.errors += part.errors
        self.cache_hits += part.cache_hits
        self.cache_lookups += part.cache_lookups
        self.tokens_issued += part.tokens_issued
        for mine, others in (
            (self.durations, part.durations),
            (self.upstream_durations, part.upstream_durations),
        ):
            for bucket, count in enumerate(others[:BUCKETS]):
                mine[bucket] += count


class History:
    """The steps of each span, and how things are now."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: dict[str, deque[Step]] = {name: deque(maxlen=STEPS + 1) for name in SPANS}
        self._latest: dict[int, Slice] = {}
        self.routes = Breakdown(clock=self._now)
        self.clients = Breakdown(clock=self._now)
        self.changes = 0
        """Counts up with each slice."""

    def add(self, process: int, part: Slice) -> None:
        """Add what a process counted."""
        self._latest[process] = part
        for span in SPANS.values():
            step = self._current(span)
            step.add(part)
            step.inflight = max(step.inflight, self.inflight)
        self.routes.add(part.routes)
        self.clients.add(part.clients)
        self.changes += 1

    def forget(self, process: int) -> None:
        """A process ended. What it counted stays."""
        self._latest.pop(process, None)

    @property
    def inflight(self) -> int:
        """Requests in flight."""
        return sum(part.inflight for part in self._latest.values())

    @property
    def connections(self) -> int:
        """Client connections that are open now."""
        return sum(part.connections for part in self._latest.values())

    @property
    def is_store_up(self) -> bool:
        """Whether the store responded to the last operation of every process."""
        return all(part.is_store_up for part in self._latest.values())

    @property
    def is_store_writable(self) -> bool:
        """Whether the store takes the writes of every process that was asked last."""
        return all(part.is_store_writable for part in self._latest.values())

    def steps(self, span: Span = SHORTEST) -> list[Step]:
        """`STEPS` steps of a span, oldest first; of the shortest, the last of them is the newest
        that is complete, of others it may have begun only now."""
        now = self._clock()
        newest = span.newest(now)
        known = {step.number: step for step in self._steps[span.name]}
        for step in known.values():
            over_s = min(span.step_s, now - step.number * span.step_s)
            step.length_s = max(1.0, over_s - step.missed_s)
        return [
            known.get(number) or Step(number, span.step_s)
            for number in range(newest - STEPS + 1, newest + 1)
        ]

    def seconds_ago(self, span: Span) -> float:
        """How long ago the last of its `steps` ends; less than 0 for one that has begun."""
        now = self._clock()
        return now - (span.newest(now) + 1) * span.step_s

    def time_axis(self, span: Span, wall_time: float) -> TimeAxis:
        """When its `steps` are, where it is `wall_time` (Unix time) now."""
        return TimeAxis(wall_time - self.seconds_ago(span), span.step_s, STEPS)

    def _now(self) -> float:
        return self._clock()

    def _current(self, span: Span) -> Step:
        number, steps = span.number(self._clock()), self._steps[span.name]
        if not steps or steps[-1].number != number:
            step = Step(number, span.step_s, is_known=True)
            if not steps:
                step.missed_s = self._clock() - number * span.step_s
            steps.append(step)
        return steps[-1]


def join(steps: Iterable[Step]) -> Step:
    """Several steps as one, for what is counted; its rate means nothing."""
    joined = Step(0)
    for step in steps:
        joined.requests += step.requests
        joined.errors += step.errors
        joined.cache_hits += step.cache_hits
        joined.cache_lookups += step.cache_lookups
        joined.tokens_issued += step.tokens_issued
        joined.inflight = max(joined.inflight, step.inflight)
        for bucket in range(BUCKETS):
            joined.durations[bucket] += step.durations[bucket]
            joined.upstream_durations[bucket] += step.upstream_durations[bucket]
    return joined


def quantile(counts: Sequence[int], q: float) -> float | None:
    """The quantile `q` (0 to 1) of what was counted by the buckets of `DURATION_BUCKETS_S`, in
    seconds; None where nothing was.

    As Prometheus' `histogram_quantile`: evenly spread within a bucket, and what is above
    the highest bound counts as that bound.
    """
    rank = q * sum(counts)
    if not rank:
        return None
    below, lower = 0, 0.0
    for count, upper in zip(counts, DURATION_BUCKETS_S, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below += count
        lower = upper
    return DURATION_BUCKETS_S[-1]


class Recent:
    """Collects the slices of all processes."""

    def __init__(self) -> None:
        self.history = History()
        self.events = Events()

    def receive(self, process: int, part: Slice) -> None:
        """Add what a process counted."""
        self.history.add(process, part)
        self.events.receive(process, part)

    def forget(self, process: int) -> None:
        """A process ended."""
        self.history.forget(process)
        self.events.forget(process)
