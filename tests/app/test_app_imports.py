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


def test_collector_passes_over_large_configurations_until_much_of_them_is_garbage() -> None:
    program = """
import gc
import sys
from gateway.app.generation import requests_first
from gateway.app.process import keep_what_is_made

def cycles(number):
    for _ in range(number):
        one = []
        one.append(one)

gc.disable()
keep_what_is_made()
first = gc.get_freeze_count()
assert first and gc.isenabled()
with requests_first():
    made = [[] for _ in range(25_000)]
assert gc.get_freeze_count() > first + 25_000 and gc.isenabled()
with requests_first():
    cycles(sys.getallocatedblocks())
used = sys.getallocatedblocks()
assert gc.get_freeze_count() > used // 4
with requests_first():
    pass
assert sys.getallocatedblocks() < 0.6 * used and gc.isenabled()
assert gc.get_freeze_count() > first, "what is in use is passed over again"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_garbage_of_requests_is_collected_after_a_reload() -> None:
    program = """
import gc
import sys
from gateway.app.generation import requests_first
from gateway.app.process import keep_what_is_made

gc.disable()
keep_what_is_made()
first = gc.get_freeze_count()
with requests_first():
    requests = [[] for _ in range(1_000)]
    for one in requests:
        one.append(one)
assert gc.get_freeze_count() == first
del one, requests
assert gc.collect() >= 1_000
"""
    subprocess.run([sys.executable, "-c", program], check=True)
