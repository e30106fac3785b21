"""The gateway and the reference at half of what they take, at a constant rate."""

from __future__ import annotations

from contextlib import ExitStack

from bench.constant_rate import SteadyRun
from bench.lab import Lab, Running
from bench.results import Results, Steady
from bench.subjects import GATEWAY, REFERENCE
from bench.workloads import VARIED


def measure_latency(lab: Lab, results: Results) -> None:
    """Add what was seen at half of each one's own saturation, and at half of the gateway's.

    Saturation is measured anew in each round, just before: the machine's speed drifts.
    Raises `BenchError`.
    """
    for number in range(lab.plan.steady_rounds):
        with ExitStack() as stack:
            gateway = stack.enter_context(lab.running(GATEWAY))
            reference = stack.enter_context(lab.running(REFERENCE))
            halves = {one: half_of_saturation(lab, one) for one in (gateway, reference)}
            runs = [
                (gateway, "own", halves[gateway]),
                (reference, "own", halves[reference]),
                (reference, "gateway", halves[gateway]),
            ]
            for one, at, rate in reversed(runs) if number % 2 else runs:
                seen = one.steady(rate=rate, seconds=lab.plan.steady_seconds)
                one.forget_log()
                results.steady.append(as_steady(one.subject.name, at, number, rate, seen))
                lab.report(
                    f"round {number + 1} of {lab.plan.steady_rounds}  {one.subject.name:25}"
                    f" at {rate:,.0f}/s: p99 {seen.latency_ns.p99 / 1000:,.0f} us"
                )


def half_of_saturation(lab: Lab, running: Running) -> float:
    """Half of the requests per second that it takes now."""
    running.steady(rate=0, seconds=lab.plan.warmup_s, warmup_s=0)
    seen = running.saturate(VARIED, lab.plan.seconds)
    running.forget_log()
    return seen.requests_per_s / 2


def as_steady(subject: str, at: str, number: int, rate: float, seen: SteadyRun) -> Steady:
    """A run as the results keep it, in microseconds."""
    return Steady(
        subject=subject,
        at=at,
        round=number,
        rate=rate,
        p50_us=seen.latency_ns.p50 / 1000,
        p99_us=seen.latency_ns.p99 / 1000,
        p99_9_us=seen.latency_ns.p99_9 / 1000,
        max_us=seen.latency_ns.max / 1000,
        lag_p99_us=seen.lag_ns.p99 / 1000,
        errors=seen.errors,
    )
