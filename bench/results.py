"""What a run of the bench found, as it is written to a file.

Only what was measured is kept; whatever can be computed from it is computed when it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.machine import Machine
from bench.plan import Plan
from bench.processes import BenchError
from bench.subjects import Settings


@dataclass(frozen=True, slots=True)
class SubjectFacts:
    """A subject as it was measured."""

    name: str
    title: str
    version: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of wrk, at saturation."""

    subject: str
    workload: str
    round: int
    is_repeat: bool
    """The reference once more in the same round: what the machine's noise is seen by."""
    requests_per_s: float
    bytes_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """User and system time of the subject's processes, for each request."""
    memory_mib: float
    memory_kind: str
    subject_busy: float
    """Share of its core's time, 0 to 1. Well below 1, the load was what ran out."""
    load_busy: float
    foreign: float
    """Share of all these cores that other processes took: 0 on a machine of our own."""
    stolen: float
    """Share that the hypervisor gave to others."""
    errors: int
    """Answers other than 2xx and 3xx, and broken connections."""


@dataclass(frozen=True, slots=True)
class Steady:
    """One run at a constant rate. Latency counts from when a request was due."""

    subject: str
    at: str
    """Half of whose saturation the rate was: `own` or `gateway`."""
    round: int
    rate: float
    p50_us: float
    p99_us: float
    p99_9_us: float
    max_us: float
    lag_p99_us: float
    """How late the load generator itself was."""
    errors: int


@dataclass(frozen=True, slots=True)
class H2Sample:
    """One run over HTTP/2, at saturation."""

    subject: str
    kind: str
    """Of requests: `measures/h2.py` names them."""
    shape: str
    """Connections x streams of each."""
    round: int
    requests_per_s: float
    cpu_us: float
    p50_us: float
    p99_us: float
    errors: int


@dataclass(frozen=True, slots=True)
class GrowthPoint:
    """What a request costs at one size of one thing."""

    curve: str
    size: int
    round: int
    cpu_us: float
    memory_mib: float
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure that was taken once or several times."""

    values: tuple[float, ...]
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """What was not measured, and why."""

    what: str
    why: str


@dataclass(slots=True)
class Results:
    """Everything."""

    machine: Machine
    plan: Plan
    seconds: float = 0.0
    """How long it took."""
    subjects: list[SubjectFacts] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    steady: list[Steady] = field(default_factory=list)
    h2: list[H2Sample] = field(default_factory=list)
    growth: list[GrowthPoint] = field(default_factory=list)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    instructions: str = ""
    """What the count of instructions printed."""
    skipped: list[Skip] = field(default_factory=list)

    def title_of(self, subject: str) -> str:
        """How the report names a subject."""
        return next((one.title for one in self.subjects if one.name == subject), subject)


def write_results(results: Results, path: Path) -> None:
    """As indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read_results(path: Path) -> Results:
    """Raises `BenchError` for a file that is not there or holds something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except FileNotFoundError:
        raise BenchError(f"{path} is not there: run `make bench` first") from None
    except msgspec.DecodeError as error:
        raise BenchError(f"{path}: {error}") from None


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of a store: how many a second, and how long they took, in microseconds."""

    per_s: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """One store full of tokens."""

    name: str
    place: str
    """What a token takes bytes of."""
    bytes_per_token: int
    filled_per_s: float = 0.0
    lookup: Calls | None = None
    """One after another; so the next but one, for tokens that do not exist."""
    lookup_at_once: Calls | None = None
    lookup_unknown: Calls | None = None
    issue: Calls | None = None
    """Many at once."""


@dataclass(frozen=True, slots=True)
class StoreResults:
    """What `bench.stores` measured."""

    date: str
    commit: str
    tokens: int
    at_once: int
    stores: tuple[StoreFigures, ...]


def read_stores(path: Path) -> StoreResults:
    """Raises `OSError` and `msgspec.MsgspecError`."""
    return msgspec.json.decode(path.read_bytes(), type=StoreResults)
