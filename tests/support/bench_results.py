"""Results of the bench, made up, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from bench.cores import Placement
from bench.machine import Machine
from bench.plan import FULL
from bench.results import (
    GrowthPoint,
    H2Sample,
    Measurement,
    Results,
    Sample,
    Skip,
    Steady,
    SubjectFacts,
)
from bench.subjects import Settings

MACHINE = Machine(
    date="2026-01-02 03:04 UTC",
    commit="0123456789ab",
    cpu="Some CPU",
    cores=2,
    is_virtual=True,
    memory_gib=8.0,
    kernel="6.1",
    system="Debian",
    python="3.11.7",
    load_before=0.1,
    placement=Placement(subject=(1,), load=(0,), origin=(0,)),
)


def sample(subject: str, number: int, rate: float, **changes: Any) -> Sample:
    """A run of wrk."""
    values: dict[str, Any] = {
        "workload": "varied",
        "is_repeat": False,
        "bytes_per_s": rate * 1000,
        "p50_us": 100.0,
        "p99_us": 900.0,
        "cpu_us": 1e6 / rate,
        "memory_mib": 50.0,
        "memory_kind": "RSS",
        "subject_busy": 1.0,
        "load_busy": 0.5,
        "foreign": 0.0,
        "stolen": 0.0,
        "errors": 0,
    }
    return Sample(subject=subject, round=number, requests_per_s=rate, **(values | changes))


def steady(subject: str, at: str, number: int, p99_us: float) -> Steady:
    """A run at a constant rate."""
    return Steady(subject, at, number, 5000.0, p99_us / 4, p99_us, p99_us * 2, p99_us * 3, 20.0, 0)


def make_results() -> Results:
    """Two rounds of three subjects. The machine was twice as fast in the second round."""
    settings = Settings(auth="none")
    facts = [
        SubjectFacts("gateway", "this gateway", "1.0", settings),
        SubjectFacts("nginx-auth-cached", "nginx <auth> | cached", "1.22", settings),
        SubjectFacts("aiohttp", "plain aiohttp", "3.14", settings),
    ]
    rates = {"gateway": (600.0, 1300.0), "nginx-auth-cached": (1000.0, 2000.0)}
    return Results(
        machine=MACHINE,
        plan=FULL,
        seconds=600.0,
        subjects=facts,
        samples=[
            *(
                sample(subject, number, rate)
                for subject, both in rates.items()
                for number, rate in enumerate(both)
            ),
            sample("nginx-auth-cached", 0, 1010.0, is_repeat=True),
            sample("nginx-auth-cached", 1, 1900.0, is_repeat=True),
            sample("aiohttp", 0, 150.0, subject_busy=0.5, errors=7),
        ],
        steady=[
            steady("gateway", "own", 0, 220.0),
            steady("gateway", "own", 1, 400.0),
            steady("nginx-auth-cached", "own", 0, 200.0),
            steady("nginx-auth-cached", "own", 1, 200.0),
        ],
        measurements={
            "start_s": Measurement((0.4, 0.5, 0.6), "s"),
            "start_mib": Measurement((70.0,), "MiB", "RSS"),
            "idle_mib": Measurement((120.0,), "MiB", "RSS"),
            "idle_connections": Measurement((2000.0,), "connections"),
        },
        h2=[
            H2Sample(subject, "grpc-varied", "4x100", number, 1e6 / cpu, cpu, 100.0, 900.0, 0)
            for subject, cpu in (("gateway", 30.0), ("nginx-auth-cached", 60.0))
            for number in range(2)
        ],
        growth=[
            GrowthPoint("routes", size, number, 30.0 + number + size / 100, 80.0)
            for size in (1, 1000)
            for number in range(2)
        ],
        skipped=[Skip("haproxy", "haproxy is not installed; get it by: apt-get install haproxy")],
    )
