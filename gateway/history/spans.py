"""The spans of time for which the past is kept: each in as many steps, the longer the coarser."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 180
"""Of each span."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time up to now."""

    name: str
    """As in queries: `15m`, `24h`."""
    title: str
    seconds: float

    @property
    def step_s(self) -> float:
        """Length of one of its steps."""
        return self.seconds / STEPS

    def number(self, now: float) -> int:
        """The number of the step that `now` is in."""
        return int(now // self.step_s)

    def newest(self, now: float) -> int:
        """The number of the last step that is shown: the last complete one where steps are short;
        else the one that has begun, or minutes would pass before anything is seen."""
        number = self.number(now)
        return number - 1 if self.step_s <= SHORT_STEP_S else number


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Steps of equal length up to a moment."""

    ends_at: float
    """Unix time, seconds."""
    step_s: float
    count: int

    @property
    def starts_at(self) -> float:
        """Unix time, seconds."""
        return self.ends_at - self.count * self.step_s

    @property
    def times(self) -> list[float]:
        """When each step begins, Unix time."""
        return [self.starts_at + at * self.step_s for at in range(self.count)]

    def coarser(self, steps: int) -> TimeAxis:
        """The same time, with so many steps in one."""
        return TimeAxis(self.ends_at, self.step_s * steps, -(-self.count // steps))


SHORT_STEP_S = 5.0
SHORTEST = Span("15m", "15\u00a0min", 900.0)
SPANS = {
    span.name: span
    for span in (
        SHORTEST,
        Span("1h", "1\u00a0h", 3600.0),
        Span("6h", "6\u00a0h", 6 * 3600.0),
        Span("24h", "24\u00a0h", 24 * 3600.0),
    )
}
