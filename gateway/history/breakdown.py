"""Requests by name, of a route or a client, over time.

Bounded: `MAX_NAMES` names and `OTHERS`, each with `STEPS` steps of each span in arrays of a fixed
length, some 15 KB a name. What further names do is added up as `OTHERS`, until a name that was idle
for `IDLE_S` makes room.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Sequence

import msgspec

from gateway.history.spans import SPANS, STEPS, Span

MAX_NAMES = 100
IDLE_S = 900.0
OTHERS = ""
"""The name of all that have none of their own."""


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """Requests of one name within some time."""

    name: str
    requests: int = 0
    rejected: int = 0
    """With a status from 400 to 499."""
    failed: int = 0
    """With a status from 500 on."""
    seconds: float = 0.0
    """Their durations, added up."""

    @property
    def mean_s(self) -> float | None:
        """Duration of a request on average."""
        return self.seconds / self.requests if self.requests else None

    @property
    def rejected_share(self) -> float | None:
        """Share of the requests (0 to 1) that were rejected."""
        return self.rejected / self.requests if self.requests else None

    @property
    def failed_share(self) -> float | None:
        """Share of the requests (0 to 1) that failed."""
        return self.failed / self.requests if self.requests else None


def fold(counts: Sequence[Counts], limit: int) -> list[Counts]:
    """The `limit` busiest of them, and the rest as `OTHERS`."""
    if len(counts) <= limit:
        return list(counts)
    ordered = sorted(counts, key=lambda one: one.requests, reverse=True)
    return [*ordered[:limit], add_up(OTHERS, ordered[limit:])]


def add_up(name: str, counts: Iterable[Counts]) -> Counts:
    """Several as one."""
    requests = rejected = failed = 0
    seconds = 0.0
    for one in counts:
        requests += one.requests
        rejected += one.rejected
        failed += one.failed
        seconds += one.seconds
    return Counts(name, requests, rejected, failed, seconds)


class Breakdown:
    """The requests of each name within each span."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._series: dict[str, _Series] = {}

    def __len__(self) -> int:
        return len(self._series)

    def add(self, counts: Iterable[Counts]) -> None:
        """Add what a process counted."""
        now = self._clock()
        idle: list[str] | None = None
        for one in counts:
            name = one.name
            if name not in self._series and len(self._series) >= MAX_NAMES:
                if idle is None:
                    idle = [
                        known
                        for known, series in self._series.items()
                        if known != OTHERS and series.is_idle(now)
                    ]
                if idle:
                    del self._series[idle.pop()]
                else:
                    name = OTHERS
            series = self._series.get(name)
            if series is None:
                series = self._series[name] = _Series()
            series.add(now, one)

    def totals(self, span: Span) -> list[Counts]:
        """The requests of each name within a span, the busiest first, `OTHERS` last."""
        return [whole for whole, _ in self.series(span)]

    def series(self, span: Span) -> list[tuple[Counts, list[Counts]]]:
        """The same, each with its steps, oldest first."""
        now = self._clock()
        found = []
        for name, series in self._series.items():
            steps = series.steps(name, span, now)
            whole = add_up(name, steps)
            if whole.requests:
                found.append((whole, steps))
        return sorted(found, key=lambda one: (one[0].name == OTHERS, -one[0].requests, one[0].name))

    def steps(self, name: str, span: Span) -> list[Counts]:
        """The requests of a name in each step of a span, oldest first."""
        series = self._series.get(name)
        if series is None:
            return [Counts(name)] * STEPS
        return series.steps(name, span, self._clock())


class _Series:
    """One name: rings of arrays, one for each span. A slot is that of the step whose number leaves
    its index when divided by `STEPS`; slots of steps without a request are zeroed on the way."""

    __slots__ = ("last_at", "rings")

    def __init__(self) -> None:
        self.rings = {name: _Ring() for name in SPANS}
        self.last_at = 0.0

    def is_idle(self, now: float) -> bool:
        """Whether it has had no request for a while."""
        return now - self.last_at >= IDLE_S

    def add(self, now: float, counts: Counts) -> None:
        self.last_at = now
        for name, span in SPANS.items():
            self.rings[name].add(span.number(now), counts)

    def steps(self, name: str, span: Span, now: float) -> list[Counts]:
        return self.rings[span.name].steps(name, span.newest(now))


class _Ring:
    __slots__ = ("failed", "newest", "rejected", "requests", "seconds")

    def __init__(self) -> None:
        self.newest = -1
        """Number of the last step that was written."""
        self.requests = array("I", [0]) * STEPS
        self.rejected = array("I", [0]) * STEPS
        self.failed = array("I", [0]) * STEPS
        self.seconds = array("d", [0.0]) * STEPS

    def add(self, number: int, counts: Counts) -> None:
        for passed in range(max(self.newest + 1, number - STEPS + 1), number + 1):
            slot = passed % STEPS
            self.requests[slot] = self.rejected[slot] = self.failed[slot] = 0
            self.seconds[slot] = 0.0
        self.newest = max(self.newest, number)
        slot = number % STEPS
        self.requests[slot] += counts.requests
        self.rejected[slot] += counts.rejected
        self.failed[slot] += counts.failed
        self.seconds[slot] += counts.seconds

    def steps(self, name: str, newest: int) -> list[Counts]:
        nothing = Counts(name)
        return [
            Counts(
                name, self.requests[slot], self.rejected[slot], self.failed[slot],
                self.seconds[slot],
            )
            if self.newest - STEPS < number <= self.newest and self.requests[slot]
            else nothing
            for number, slot in ((at, at % STEPS) for at in range(newest - STEPS + 1, newest + 1))
        ]  # fmt: skip
