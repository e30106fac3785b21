"""The account of a soak finds what may not be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from soak.ledger import Ledger
from soak.run import Report, judge
from soak.watch import Sample, Watch

SOUND = Report(
    ledger=Ledger(),
    before=Sample(0, 100, 50, 8),
    after=Sample(60, 101, 51, 8),
    slope_mib_per_hour=3,
    events=["reload"],
)


def test_run_with_clean_errors_and_excused_losses_is_sound() -> None:
    ledger = Ledger()
    ledger.errors["502 upstream_connect_failed"] += 3
    ledger.lost["get: ConnectionResetError (fault)"] += 2
    ledger.upstream["n1"] += 1
    assert judge(replace(SOUND, ledger=ledger)) == []


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (replace(SOUND, after=Sample(60, 100, 50, 40)), "connections leaked"),
        (replace(SOUND, after=Sample(60, 100, 90, 8)), "descriptors leaked"),
        (replace(SOUND, slope_mib_per_hour=900), "memory grows by 900 MiB/h"),
    ],
)
def test_leak_is_a_fault(report: Report, fault: str) -> None:
    assert judge(report) == [fault]


def test_wrong_answer_lost_request_and_doubled_request_are_faults() -> None:
    ledger = Ledger()
    ledger.add_wrong("GET ok: 200 b'another'")
    ledger.lost["get: TimeoutError"] += 1
    ledger.upstream["n1"] += 2
    assert len(judge(replace(SOUND, ledger=ledger))) == 3


def test_slope_is_that_of_the_second_half() -> None:
    watch = Watch.__new__(Watch)
    watch.samples = [Sample(at, 50.0 + at, 0, 0) for at in range(100)]
    watch.samples += [Sample(at, 200 + at / 60, 0, 0) for at in range(100, 200)]
    assert round(watch.slope_mib_per_hour()) == 60
