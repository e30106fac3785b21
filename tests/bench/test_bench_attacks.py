"""The attacks that are measured: each is made, and told of, in a round of its own."""

from __future__ import annotations

import subprocess
import sys

from support.deadlines import scaled
from support.tiers import slow

from bench.attacks.__main__ import HEADINGS


@slow("bench")
def test_an_attack_is_measured_beside_honest_requests() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.attacks", "--only", "slow_bodies", "--rounds", "1",
         "--seconds", f"{scaled(0.5):.1f}"],
        capture_output=True, text=True, check=True, timeout=scaled(120),
    )  # fmt: skip
    rows = [line for line in ran.stdout.splitlines() if line.startswith("| slow bodies |")]
    (row,) = rows
    reported = dict(
        zip(HEADINGS, (cell.strip() for cell in row.strip("| ").split("|")), strict=True)
    )
    assert int(reported["done"]) > 0
    assert reported["failures"] == "0"
    assert float(reported["p99 beside"].removesuffix(" ms")) > 0
