"""wrk: as many requests as a subject takes, on kept connections."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.cores import Cpus
from bench.credentials import Credentials
from bench.processes import BenchError, pinned, run
from bench.subjects import Tool
from bench.workloads import Workload

WRK = Tool("wrk", "apt-get install wrk", ("--version",))
SCRIPT = Path(__file__).with_name("wrk.lua")
_LINE = re.compile(r"^bench: (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WrkRun:
    """What wrk saw. It is a closed loop: a connection waits for its response, then asks again."""

    duration_us: int
    requests: int
    bytes: int
    """Heads included."""
    p50_us: int
    p99_us: int
    max_us: int
    socket_errors: int
    """Failed connects, reads and writes, and answers that took longer than 2 s."""
    status_errors: int
    """Answers with a status of 400 and above."""

    @property
    def requests_per_s(self) -> float:
        """Throughput."""
        return self.requests * 1e6 / self.duration_us

    @property
    def bytes_per_s(self) -> float:
        """Throughput."""
        return self.bytes * 1e6 / self.duration_us


def run_wrk(
    port: int,
    workload: Workload,
    *,
    seconds: int,
    connections: int,
    cpus: Cpus,
    credentials: Credentials,
    prefix: str = "",
) -> WrkRun:
    """Load a subject for some seconds. Raises `BenchError`."""
    scheme = "https" if workload.is_tls else "http"
    argv = (
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT)),
        *(f"{scheme}://127.0.0.1:{port}{prefix}{workload.path}", "--"),
        *(workload.method, str(workload.body_bytes), workload.varies),
        *(credentials.token, str(credentials.token_file)),
    )
    return parse_wrk(run(tuple(pinned(argv, cpus)), timeout_s=seconds + 30))


def parse_wrk(output: str) -> WrkRun:
    """The line that `wrk.lua` adds to what wrk prints. Raises `BenchError` without one."""
    found = _LINE.search(output)
    if found is None:
        raise BenchError(f"wrk told no figures: {output.strip()[-300:]}")
    try:
        return msgspec.json.decode(found[1], type=WrkRun)
    except msgspec.DecodeError as error:
        raise BenchError(f"wrk told something else: {error}") from None
