"""Memory and descriptors over a run, and the slope of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from soak.subject import Subject

MIB = 1 << 20


class Sample(NamedTuple):
    """All processes together."""

    at_s: float
    rss_mib: float
    descriptors: int
    connections: int


@dataclass
class Watch:
    """Looks at the processes of a gateway every second."""

    subject: Subject
    samples: list[Sample] = field(default_factory=list)

    async def run(self) -> None:
        """Until cancelled."""
        started = time.monotonic()
        while True:
            await asyncio.sleep(1)
            with contextlib.suppress(psutil.Error):
                self.samples.append(look(self.subject, time.monotonic() - started))

    def slope_mib_per_hour(self) -> float:
        """Of memory, by least squares over the second half: the first fills caches."""
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 10:
            return 0.0
        mean_at = sum(sample.at_s for sample in half) / len(half)
        mean_rss = sum(sample.rss_mib for sample in half) / len(half)
        spread = sum((sample.at_s - mean_at) ** 2 for sample in half)
        rise = sum((one.at_s - mean_at) * (one.rss_mib - mean_rss) for one in half)
        return rise / spread * 3600 if spread else 0.0


def look(subject: Subject, at_s: float = 0.0) -> Sample:
    """One sample. Raises `psutil.Error` where a process ended meanwhile."""
    processes = subject.processes
    return Sample(
        at_s,
        sum(one.memory_info().rss for one in processes) / MIB,
        sum(one.num_fds() for one in processes),
        sum(len(one.net_connections("tcp")) for one in processes),
    )
