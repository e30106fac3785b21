"""Memory, descriptors, connections and tasks over a run.

Memory is judged by how it grows while traffic flows, once caches and pools are full; everything
else by what is left of it when traffic has drained, beside what there was before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from types import MappingProxyType
from typing import NamedTuple

import psutil

from soak.subject import Subject

MIB = 1 << 20


class Sample(NamedTuple):
    """What the processes hold, all together where nothing else is said."""

    at_s: float
    rss_mib: float
    descriptors: int
    connections: int
    tasks: int = 0
    """Of their event loops. Told by the gateway, so only looked at where it is at rest."""
    rss_by_process: tuple[float, ...] = ()
    """In MiB: of the supervisor and of its workers, or of the one process."""
    kinds: Mapping[str, int] = MappingProxyType({})
    """Descriptors by what they are of, only looked at where the gateway is at rest."""


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
        """Of memory, by least squares over the second half: in the first, caches are filled,
        and threads started."""
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 10:
            return 0.0
        return linear_regression([s.at_s for s in half], [s.rss_mib for s in half]).slope * 3600


def look(subject: Subject, at_s: float = 0.0) -> Sample:
    """One sample, without tasks. Raises `psutil.Error` where a process ended meanwhile."""
    processes = subject.processes
    memory = tuple(one.memory_info().rss / MIB for one in processes)
    return Sample(
        at_s,
        sum(memory),
        sum(one.num_fds() for one in processes),
        sum(len(one.net_connections("tcp")) for one in processes),
        rss_by_process=memory,
    )


async def look_at_rest(subject: Subject) -> Sample:
    """One sample, with tasks: those of the admin listener's response are among them."""
    tasks = await subject.metric("gateway_event_loop_tasks")
    kinds: Counter[str] = Counter()
    for process in subject.processes:
        kinds += kinds_of(process)
    return look(subject)._replace(tasks=int(tasks), kinds=kinds)


def kinds_of(process: psutil.Process) -> Counter[str]:
    """Its descriptors by what they are of: connections by kind and state, others by name. `socket`
    is what is left of sockets: those in no state, as after a reset, and second descriptors."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed since it was listed
            target = os.readlink(entry)
            kinds[target.partition(":[")[0] if ":[" in target else Path(target).name] += 1
    for one in process.net_connections("all"):
        kinds[f"{one.family.name} {one.type.name} {one.status}"] += 1
        kinds["socket"] -= 1
    return kinds
