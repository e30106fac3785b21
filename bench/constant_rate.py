"""Load at a constant rate, by `constant_rate.c`: built here, run, and read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.cores import Cpus
from bench.processes import BenchError, pinned, run

SOURCE = Path(__file__).with_suffix(".c")
COMPILER = "cc"
INSTALL = "apt-get install gcc libc6-dev"
GRACE_S = 5
"""How long the program waits for late responses."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Nanoseconds, within 0.8 %."""

    count: int
    mean: float
    p50: int
    p90: int
    p99: int
    p99_9: int
    max: int


@dataclass(frozen=True, slots=True)
class SteadyRun:
    """What became of the requests that were due after the warm-up.

    Each of them is answered, failed (its connection broke) or unanswered.
    """

    answered: int
    failed: int
    unanswered: int
    """At the end, with or without having been sent; they are in the latencies."""
    reconnects: int
    statuses: dict[str, int]
    latency_ns: Histogram
    """From when a request was due to the end of its response."""
    lag_ns: Histogram
    """From when a request was due and could go out to when it did: the program's own delay."""

    @property
    def errors(self) -> int:
        """Requests without a response of 2xx."""
        good = sum(count for status, count in self.statuses.items() if status.startswith("2"))
        return self.answered - good + self.failed + self.unanswered


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, and how fast."""

    port: int
    requests: Path
    """As `write_requests` writes them."""
    rate: float
    """Requests per second; 0 is as fast as responses come."""
    seconds: float
    warmup_s: float = 1.0
    connections: int = 64
    sources: int = 0
    """How many addresses (127.0.1.x) connections come from; 0 leaves it to the system."""


class ConstantRate:
    """The built program."""

    def __init__(self, program: Path, cpus: Cpus) -> None:
        self._program = program
        self._cpus = cpus

    @classmethod
    def build(cls, directory: Path, cpus: Cpus, *flags: str) -> ConstantRate:
        """Raises `BenchError` without a C compiler."""
        if shutil.which(COMPILER) is None:
            raise BenchError(f"there is no C compiler; get one by: {INSTALL}")
        program = directory / "constant_rate"
        argv = (COMPILER, "-std=gnu11", "-O2", *flags, "-o", str(program), str(SOURCE))
        run(argv, timeout_s=60)
        return cls(program, cpus)

    def run(self, load: Load) -> SteadyRun:
        """Send it, and wait. Raises `BenchError`."""
        timeout_s = load.warmup_s + load.seconds + GRACE_S + 30
        return parse_steady(run(tuple(self._argv(load)), timeout_s=timeout_s))

    def start(self, load: Load) -> subprocess.Popen[str]:
        """Send it in the background: what it prints is for `parse_steady`."""
        return subprocess.Popen(
            self._argv(load), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def percentiles(self, values: Iterable[int]) -> Histogram:
        """What its histogram makes of these numbers."""
        done = subprocess.run(
            (self._program, "histogram"),
            input="\n".join(map(str, values)),
            capture_output=True,
            text=True,
            check=True,
        )
        return msgspec.json.decode(done.stdout, type=dict[str, Histogram])["latency_ns"]

    def _argv(self, load: Load) -> list[str]:
        arguments = (
            *("127.0.0.1", load.port, load.connections, load.rate, load.seconds),
            *(load.warmup_s, load.sources, load.requests),
        )
        return pinned((str(self._program), *map(str, arguments)), self._cpus)


def parse_steady(output: str) -> SteadyRun:
    """The program's line of JSON. Raises `BenchError` for anything else."""
    try:
        return msgspec.json.decode(output, type=SteadyRun)
    except msgspec.DecodeError as error:
        raise BenchError(f"constant_rate told no figures ({error}): {output[-300:]}") from None


def write_requests(path: Path, requests: Iterable[bytes]) -> Path:
    """A file of requests, which are sent in turn."""
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%d\n%b" % (len(request), request))
    return path


def render_request(
    method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> bytes:
    """An HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
