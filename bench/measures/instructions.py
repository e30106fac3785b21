"""Instructions per request, which no noisy machine disturbs: `bench/instructions.py`, if any."""

from __future__ import annotations

import sys

from bench.machine import ROOT
from bench.processes import BenchError, run
from bench.results import Results
from bench.subjects import Tool

VALGRIND = Tool("valgrind", "apt-get install valgrind", ("--version",))
MODULE = "bench.instructions"
TIMEOUT_S = 300


def count_instructions(results: Results) -> None:
    """Run it, and keep what it prints. Raises `BenchError`."""
    if not (ROOT / "bench" / "instructions.py").exists():
        raise BenchError("bench/instructions.py is not there")
    if why := VALGRIND.missing():
        raise BenchError(why)
    results.instructions = run((sys.executable, "-m", MODULE), timeout_s=TIMEOUT_S).strip()
