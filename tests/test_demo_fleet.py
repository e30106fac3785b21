"""`make demo-fleet`, as it is run by people who want to see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.deadlines import scaled
from support.tiers import slow

ROOT = Path(__file__).parents[1]


@slow("tutorials")
@pytest.mark.system
def test_fleet_demo_shows_revocation_across_replicas() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "examples.demo_fleet", "--trials", "3"],
        cwd=ROOT, capture_output=True, text=True, timeout=scaled(120),
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "refused by all three after the revocation was acknowledged: median" in finished.stdout
    assert "a cached token gets 200, one never seen 503" in finished.stdout
    assert "Redis back: the latter gets 200 after" in finished.stdout
