"""How much is measured: rounds, seconds, sizes, and which parts, subjects and workloads."""

from __future__ import annotations

from dataclasses import dataclass

from bench.workloads import WORKLOADS

PARTS = (
    "throughput", "http2", "latency", "memory", "token", "workers", "growth", "instructions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the bench. The defaults are the full run: some 45 minutes."""

    mode: str = "full"
    first_port: int = 18000
    """Of some 1000 that have to be free: the origin's, then two for each start of a subject."""
    parts: tuple[str, ...] = PARTS
    subjects: tuple[str, ...] = ()
    """Names; empty is all of them."""
    workloads: tuple[str, ...] = tuple(workload.name for workload in WORKLOADS)
    rounds: int = 7
    seconds: int = 2
    """Of each run of wrk."""
    warmup_s: float = 0.5
    connections: int = 64
    steady_rounds: int = 7
    """Of runs at a constant rate."""
    steady_seconds: int = 4
    """Of each of them, after the warm-up."""
    steady_warmup_s: float = 1.0
    stored_tokens: int = 1_000_000
    cached_tokens: int = 100_000
    idle_connections: int = 10_000
    starts: int = 5
    """How often the gateway is started to see how long that takes."""
    wrong_callers: int = 50
    growth_rounds: int = 3


FULL = Plan()
QUICK = Plan(
    mode="quick",
    workloads=("varied", "tls", "100k", "get"),
    rounds=2,
    seconds=1,
    warmup_s=0.3,
    steady_rounds=2,
    steady_seconds=2,
    stored_tokens=100_000,
    cached_tokens=20_000,
    idle_connections=2_000,
    starts=3,
    growth_rounds=1,
)
"""Below three minutes: shows that everything works, and little more."""
