"""What a process imports before it needs it, and what its garbage collector looks through: each
library costs every start time and memory."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

ON_DEMAND = ["joserfc", "cryptography", "redis", "opentelemetry", "ngh2", "re2", "multiprocessing"]
"""Imported with the first token, key, certificate or setting that needs them."""


def test_a_gateway_starts_without_the_libraries_that_its_configuration_does_not_need() -> None:
    # Not what the interpreter had before, as when coverage is measured.
    program = "import sys; before = set(sys.modules); import gateway.app.run, gateway.app.worker"
    program += "; print(*(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(ON_DEMAND) & set(loaded) == set()


@pytest.mark.parametrize("name", ["joserfc.jws", "cryptography.x509"])
def test_what_is_imported_on_demand_is_installed(name: str) -> None:
    assert importlib.import_module(name)


def test_collector_passes_over_each_configuration_until_too_much_is_kept() -> None:
    program = """
import gc
import sys
from gateway.app.generation import requests_first
from gateway.app.process import keep_what_is_made

gc.disable()
keep_what_is_made()
first = gc.get_freeze_count()
assert first and gc.isenabled()
with requests_first():
    made = [[] for _ in range(1000)]
assert first < gc.get_freeze_count() and gc.isenabled()
with requests_first():
    made += [[object()] for _ in range(sys.getallocatedblocks())]
assert gc.get_freeze_count() == 0 and gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
