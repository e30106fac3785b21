"""What a process and its children use: CPU time and memory, from /proc."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from bench.cores import TICKS_PER_SECOND

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """How much a process tree holds."""

    mib: float
    kind: str
    """`RSS` of a single process; `PSS` of several, which share pages after a fork."""


def process_tree(pid: int, proc: Path = PROC) -> list[int]:
    """The process and all below it that live now."""
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit() and (fields := _stat_fields(int(entry.name), proc)):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    tree = [pid]
    for member in tree:  # grows while it is walked
        tree += sorted(children.get(member, ()))
    return tree


def cpu_seconds(pid: int, proc: Path = PROC) -> float:
    """User and system time of the process and all below it; of children that ended, too."""
    ticks = 0
    for member in process_tree(pid, proc):
        if fields := _stat_fields(member, proc):
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS_PER_SECOND


def children_cpu_seconds() -> float:
    """User and system time of the children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(pid: int, proc: Path = PROC) -> Memory:
    """What the process and all below it hold."""
    tree = process_tree(pid, proc)
    kind = "RSS" if len(tree) == 1 else "PSS"
    kib = 0
    for member in tree:
        try:
            text = (proc / str(member) / "smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in text.splitlines():
            if line.startswith(kind.capitalize() + ":"):
                kib += int(line.split()[1])
    return Memory(kib / 1024, kind)


def _stat_fields(pid: int, proc: Path) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (number 3 of proc(5)); None if it ended."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before them may hold spaces and parentheses.
    return text.rpartition(")")[2].split()
