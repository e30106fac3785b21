"""What is read from /proc, and who gets which core."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.cores import TICKS_PER_SECOND, Placement, Shares, place, read_core_times, shares
from bench.machine import cpu_model
from bench.usage import Memory, cpu_seconds, memory, process_tree


def put_process(proc: Path, pid: int, parent: int, *, ticks: tuple[int, ...], kib: int) -> None:
    directory = proc / str(pid)
    directory.mkdir()
    # The name is chosen by the process: it may look like anything.
    before = "0 " * 9
    stat = f"{pid} (a ) R 7 (x) S {parent} {before}{' '.join(map(str, ticks))} 20 0 1"
    (directory / "stat").write_text(stat)
    rollup = f"55e0-7ffd ---p 00000000 [rollup]\nRss: {kib * 2} kB\nPss: {kib} kB\n"
    (directory / "smaps_rollup").write_text(rollup)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A master, its worker, that one's child, and a stranger."""
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    put_process(tmp_path, 10, 1, ticks=(100, 20, 3, 2), kib=1024)
    put_process(tmp_path, 11, 10, ticks=(400, 50, 0, 0), kib=2048)
    put_process(tmp_path, 9, 11, ticks=(7, 1, 0, 0), kib=512)
    put_process(tmp_path, 12, 1, ticks=(9999, 9999, 0, 0), kib=9999)
    return tmp_path


def test_process_tree_holds_all_below(proc: Path) -> None:
    assert process_tree(10, proc) == [10, 11, 9]


def test_cpu_time_is_that_of_the_tree_and_of_children_that_ended(proc: Path) -> None:
    ticks = 100 + 20 + 3 + 2 + 400 + 50 + 7 + 1
    assert cpu_seconds(10, proc) == pytest.approx(ticks / TICKS_PER_SECOND)


def test_memory_of_several_is_shared_out_and_of_one_is_resident(proc: Path) -> None:
    assert memory(10, proc) == Memory(3.5, "PSS")
    assert memory(9, proc) == Memory(1.0, "RSS")


def test_process_that_ended_meanwhile_uses_nothing(proc: Path) -> None:
    assert cpu_seconds(4711, proc) == 0.0
    assert memory(4711, proc).mib == 0.0


def test_own_process_is_read_as_the_kernel_writes_it() -> None:
    before = cpu_seconds(os.getpid())
    end = before + 0.05
    while cpu_seconds(os.getpid()) < end:
        pass
    assert memory(os.getpid()).mib > 1


def test_shares_of_cores_are_those_between_two_readings() -> None:
    before = read_core_times("cpu  9 9\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 10 0 0 90 0 0 0 0 0 0\n")
    after = read_core_times(
        "cpu  9 9\ncpu0 50 0 10 20 0 5 5 10 3 0\ncpu1 10 0 0 180 10 0 0 0 0 0\nintr 1\n"
    )
    seconds = 100 / TICKS_PER_SECOND
    assert shares(before, after, (0,)) == Shares(0.8, tasks=0.6, stolen=0.1, seconds=seconds)
    assert shares(before, after, (1,)) == Shares(0.0, 0.0, 0.0, seconds)
    assert shares(before, after, (0, 1)).busy == pytest.approx(0.4)
    assert shares(after, after, (0,)) == Shares(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("available", "workers", "placement"),
    [
        ((0,), 1, None),
        ((0, 1), 1, Placement((1,), (0,), (0,))),
        ((0, 1, 2), 1, Placement((2,), (0,), (1,))),
        ((2, 3, 6, 7), 1, Placement((7,), (2,), (3,))),
        ((0, 1, 2), 2, None),
        ((0, 1, 2, 3), 2, Placement((2, 3), (0,), (1,))),
    ],
)
def test_subject_has_its_cores_to_itself(
    available: tuple[int, ...], workers: int, placement: Placement | None
) -> None:
    assert place(available, workers=workers) == placement


def test_cpu_is_named_as_closely_as_it_can_be() -> None:
    text = "processor : 0\nmodel name\t: Some CPU\ncpu family\t: 6\nmodel\t\t: 207\n"
    assert cpu_model(text) == "Some CPU (family 6, model 207)"
    assert cpu_model("")
