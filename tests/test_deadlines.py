"""No test depends on how fast the machine is: deadlines scale, and none is written down."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import deadlines
from support.deadlines import patience, scaled, settled, until, wait_until

TESTS = Path(__file__).parent
FIXED = re.compile(
    r"""
    (?<![\w"'])timeout=[1-9]                # of a subprocess, a client, a socket
    | settimeout\([1-9]
    | asyncio\.timeout\([1-9]
    | asyncio\.wait_for\(.*,\ [1-9.]+\)
    | (?<!def\ )\bsleep\([1-9.]+\)
    | monotonic\(\)\ [-+<>]
    | assert\ .*(monotonic|perf_counter|loop\(\)\.time)\(\)
    """,
    re.VERBOSE,
)
ALLOWED = {
    "deadlines.py",
    # Rehearses a run of ten minutes, and pictures of it.
    "screenshots.py",
}


def test_no_test_has_a_deadline_of_its_own() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{number}: {line.strip()}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.name not in ALLOWED and path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if FIXED.search(line)
    ]
    assert found == [], "take scaled(), within(), until() or wait_until() of support.deadlines"


def test_deadlines_grow_with_the_wish_the_load_and_the_slowness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (1.0, 9.0, 9.0))
    monkeypatch.setattr(deadlines, "_speed", lambda: 1.0)
    monkeypatch.delenv("TEST_PATIENCE", raising=False)
    assert (patience(), scaled(3)) == (1.0, 3.0)
    monkeypatch.setattr("os.getloadavg", lambda: (8.0, 0.0, 0.0))
    assert scaled(3) == 12.0
    monkeypatch.setattr(deadlines, "_speed", lambda: 2.5)
    assert scaled(3) == 30.0
    monkeypatch.setenv("TEST_PATIENCE", "3")
    assert scaled(3) == 90.0


async def test_state_that_does_not_come_fails_the_test_though_it_was_looked_at_often_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "LEAST_LOOKS", 8)
    looks: list[int] = []
    with pytest.raises(AssertionError, match="did not come"):
        await until(lambda: looks.append(1), within_s=0)
    assert len(looks) == deadlines.LEAST_LOOKS
    with pytest.raises(AssertionError, match="what is missing"):
        wait_until(lambda: False, within_s=0, what=lambda: "what is missing")
    assert wait_until(lambda: "it is there") == "it is there"


async def test_value_has_settled_when_it_was_the_same_for_long_enough() -> None:
    values = iter([1, 2, 3, 3, 4])
    assert await settled(lambda: next(values, 5), for_s=0) == 5
