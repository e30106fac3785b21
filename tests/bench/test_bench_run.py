"""The whole bench, as small as it gets: that it measures, not what."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from support.tiers import slow

from bench.__main__ import measure
from bench.constant_rate import COMPILER, INSTALL
from bench.measures.h2 import KINDS, shapes_of
from bench.plan import Plan
from bench.processes import SEARCH_PATH, Launch
from bench.results import Skip, read_results
from bench.subjects import SUBJECTS, Settings, Subject, Tool
from bench.subjects.nginx import NGINX
from bench.wrk import WRK
from examples.ports import free_block

MISSING = [why for tool in (NGINX, WRK) if (why := tool.missing())] + (
    [] if shutil.which(COMPILER) else [f"there is no C compiler; get one by: {INSTALL}"]
)
pytestmark = [
    slow("bench"),
    pytest.mark.system,
    pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING)),
]


def are_free(first: int) -> bool:
    """Whether nobody listens on the ports that a small run uses."""
    try:
        for port in range(first, first + 40):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_bench_measures_and_stops_what_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Subject(
        name="broken",
        title="a proxy that does not start",
        tool=Tool("sh", "apt-get install dash", ("-c", "echo 1.0")),
        settings=Settings(auth="none"),
        launch=lambda site: Launch(("sh", "-c", "echo no such option; exit 1"), site.port),
        checks_tokens=False,
        workloads=frozenset({"varied"}),
    )
    monkeypatch.setattr("bench.__main__.SUBJECTS", (broken, *SUBJECTS))
    plan = Plan(
        mode="smallest",
        first_port=free_block(),
        parts=("throughput", "http2", "latency", "memory"),
        subjects=("broken", "gateway", "nginx-auth-cached"),
        workloads=("varied", "tls", "miss"),
        rounds=1,
        seconds=1,
        warmup_s=0.1,
        connections=8,
        steady_rounds=1,
        steady_seconds=1,
        steady_warmup_s=0.1,
        stored_tokens=300,
        cached_tokens=200,
        idle_connections=20,
        starts=1,
    )
    path = tmp_path / "results.json"
    assert measure(plan, path) == 0
    results = read_results(path)
    assert results.skipped == [Skip("broken", "broken did not start: no such option")]
    assert [(one.subject, one.workload, one.is_repeat) for one in results.samples] == [
        ("gateway", "varied", False),
        ("nginx-auth-cached", "varied", False),
        ("nginx-auth-cached", "varied", True),
        ("gateway", "tls", False),
        ("nginx-auth-cached", "tls", False),
        ("gateway", "miss", False),
    ]
    for sample in results.samples:
        assert sample.errors == 0, sample
        assert sample.requests_per_s > 0
        assert 0 < sample.p50_us <= sample.p99_us
        assert sample.cpu_us > 0
        assert sample.memory_mib > 1
    kinds = KINDS if shutil.which("nghttpd", path=SEARCH_PATH) else KINDS[:2]
    assert [(one.kind, one.shape, one.subject) for one in results.h2] == [
        (kind, shape.name, subject)
        for kind in kinds
        for shape in shapes_of(kind)
        for subject in ("gateway", "nginx-auth-cached")
    ]
    for over_h2 in results.h2:
        assert over_h2.errors == 0, over_h2
        assert over_h2.cpu_us > 0
    assert [(one.subject, one.at) for one in results.steady] == [
        ("gateway", "own"),
        ("nginx-auth-cached", "own"),
        ("nginx-auth-cached", "gateway"),
    ]
    assert list(results.measurements["idle_connections"].values) == [20]
    # Those that were shown to it, and the one that the bench looks by whether it works.
    assert list(results.measurements["cache_entries"].values) == [201]
    assert (
        "CPU of nginx cached auth_request over the gateway's: heads and responses vary"
        in capsys.readouterr().out
    )
    assert are_free(plan.first_port)
