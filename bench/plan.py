"""How much is measured: rounds, seconds, sizes, and which parts, subjects and workloads."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("throughput", "latency", "memory", "token", "workers", "instructions")


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the bench. The defaults are the full run: some 20 minutes."""

    mode: str = "full"
    first_port: int = 18000
    """Of some 1000 that have to be free: the origin's, then two for each start of a subject."""
    parts: tuple[str, ...] = PARTS
    subjects: tuple[str, ...] = ()
    """Names; empty is all of them."""
    workloads: tuple[str, ...] = ("get", "distinct", "post", "100k", "1m", "miss")
    rounds: int = 5
    seconds: int = 3
    """Of each run of wrk."""
    warmup_s: float = 0.5
    connections: int = 64
    steady_rounds: int = 5
    """Of runs at a constant rate."""
    steady_seconds: int = 6
    """Of each of them, after the warm-up."""
    steady_warmup_s: float = 1.0
    stored_tokens: int = 1_000_000
    cached_tokens: int = 100_000
    idle_connections: int = 10_000
    starts: int = 5
    """How often the gateway is started to see how long that takes."""
    wrong_callers: int = 50


FULL = Plan()
QUICK = Plan(
    mode="quick",
    workloads=("get", "distinct", "100k", "miss"),
    rounds=2,
    seconds=1,
    warmup_s=0.3,
    steady_rounds=2,
    steady_seconds=2,
    stored_tokens=100_000,
    cached_tokens=20_000,
    idle_connections=2_000,
    starts=3,
)
"""Below three minutes: shows that everything works, and little more."""
