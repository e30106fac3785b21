"""Readers of strangers' bytes: known crashes stay mended, and a bounded search finds no new one.

`make fuzz` searches longer.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deadlines import scaled
from support.tiers import slow

from fuzz.targets import CASES, SEEDS, TARGETS

ROOT = Path(__file__).parent.parent.parent
KEPT = sorted(path for path in CASES.rglob("*") if path.is_file() and path.name != "README.md")


@pytest.mark.parametrize("case", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_input_that_once_broke_a_reader_breaks_it_no_more(case: Path) -> None:
    TARGETS[case.parent.name](case.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_reader_takes_or_refuses_what_is_cut_out_of_sound_input(name: str) -> None:
    seeds = SEEDS[name]

    @settings(max_examples=60)
    @given(st.data())
    def search(data: st.DataObject) -> None:
        seed = data.draw(st.sampled_from(seeds))
        start = data.draw(st.integers(0, len(seed)))
        end = data.draw(st.integers(start, len(seed)))
        filling = data.draw(st.binary(max_size=12))
        TARGETS[name](seed[:start] + filling + seed[end:])

    search()


@slow("Atheris")
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="Atheris has no wheel for this Python or platform: pip install atheris",
)
def test_search_by_coverage_finds_nothing() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "fuzz", "--runs", "1500"],
        cwd=ROOT, capture_output=True, text=True, timeout=scaled(240),
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    assert found.stdout.count("fuzzing ") == len(TARGETS)
    assert "no interesting inputs were found" not in found.stderr  # a search that sees nothing
