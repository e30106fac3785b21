"""Which core does what, and how busy each of them was."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

Cpus = tuple[int, ...]
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Placement:
    """The subject has its core to itself; the origin and the load share what they must."""

    subject: Cpus
    load: Cpus
    origin: Cpus

    @property
    def all_cpus(self) -> Cpus:
        """Those that the bench uses."""
        return tuple(sorted({*self.subject, *self.load, *self.origin}))


def place(available: Cpus, *, workers: int = 1) -> Placement | None:
    """Who gets which of the available cores; None where there are too few for so many workers.

    The last ones go to the subject, the first one to the load, the second one to the
    origin if there is one left. Several workers are measured only where load and origin
    have a core each: one core can't feed two.
    """
    needed = 2 if workers == 1 else workers + 2
    if len(available) < needed:
        return None
    others = available[: len(available) - workers]
    return Placement(available[-workers:], others[:1], others[1:2] or others[:1])


def available_cpus() -> Cpus:
    """The cores this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """What the cores have done since boot, in clock ticks."""

    total: dict[int, int]
    busy: dict[int, int]
    tasks: dict[int, int]
    """The part of it that processes were charged for, without interrupts."""
    stolen: dict[int, int]
    """By the hypervisor, for others."""


def read_core_times(text: str | None = None) -> CoreTimes:
    """From the text of /proc/stat."""
    times = CoreTimes({}, {}, {}, {})
    for line in (text or Path("/proc/stat").read_text()).splitlines():
        name, *fields = line.split()
        if name == "cpu" or not name.startswith("cpu"):
            continue
        # user nice system idle iowait irq softirq steal; guest times are within user.
        ticks = [int(field) for field in fields[:8]]
        core = int(name.removeprefix("cpu"))
        times.total[core] = sum(ticks)
        times.busy[core] = sum(ticks) - ticks[3] - ticks[4]
        times.tasks[core] = sum(ticks[:3])
        times.stolen[core] = ticks[7]
    return times


@dataclass(frozen=True, slots=True)
class Shares:
    """What some cores did between two readings, as shares of their time, 0 to 1."""

    busy: float
    tasks: float
    stolen: float
    seconds: float
    """That the shares are of, all cores together."""


def shares(before: CoreTimes, after: CoreTimes, cpus: Cpus) -> Shares:
    """Of these cores together."""
    total = sum(after.total[core] - before.total[core] for core in cpus)

    def share(then: dict[int, int], now: dict[int, int]) -> float:
        return sum(now[core] - then[core] for core in cpus) / total if total else 0.0

    return Shares(
        share(before.busy, after.busy),
        share(before.tasks, after.tasks),
        share(before.stolen, after.stolen),
        total / TICKS_PER_SECOND,
    )
