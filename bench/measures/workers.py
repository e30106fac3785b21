"""Two workers beside one: what they take where there is room, and what they cost anywhere."""

from __future__ import annotations

from bench.cores import Cpus, available_cpus, place
from bench.lab import Lab, Running
from bench.processes import BenchError, Launch, run
from bench.results import Measurement, Results
from bench.subjects import GATEWAY, Site
from bench.subjects.gateway import COMMAND, launch_gateway, write_gateway_config
from bench.usage import cpu_seconds
from bench.workloads import VARIED

COST_RATE_SHARE = 0.5
"""Of one worker's saturation: the load at which the cost of a request is compared."""


def measure_workers(lab: Lab, results: Results) -> None:
    """Add the ratio of two workers' throughput to one's, where load and origin have a core
    each beside the two, and the ratio of their CPU time per request in any case: on the same cores,
    so that a core shared with the load counts against both.

    Raises `BenchError` where the configuration refuses two workers.
    """
    refuse_unless_supported(lab)
    cpus = available_cpus()
    room = place(cpus, workers=2)
    cores = room.subject if room else cpus
    costs, speeds = [], []
    for number in range(lab.plan.steady_rounds):
        with lab.running(GATEWAY, one_worker, cpus=cores) as running:
            saturation = saturate(running, lab)
            single = cost(running, lab, saturation * COST_RATE_SHARE)
        with lab.running(GATEWAY, two_workers, cpus=cores) as running:
            double = cost(running, lab, saturation * COST_RATE_SHARE)
            costs.append(double / single)
            if room:
                speeds.append(saturate(running, lab) / saturation)
        lab.report(
            f"round {number + 1} of {lab.plan.steady_rounds}  a request costs"
            f" {single:.0f} us of CPU with one worker, {double:.0f} us with two"
        )
    add = results.measurements.__setitem__
    add("workers_cpu_ratio", Measurement(tuple(costs), "x", "CPU time per request, 2 over 1"))
    if room is None:
        raise BenchError(no_room(cpus))
    add("workers_speed_ratio", Measurement(tuple(speeds), "x", "requests per second, 2 over 1"))


def no_room(cpus: Cpus) -> str:
    """Why two workers' throughput says nothing here."""
    return (
        f"throughput of two workers needs 4 cores (two workers, load, origin), and here are"
        f" {len(cpus)}: the load would be measured, not the gateway"
    )


def refuse_unless_supported(lab: Lab) -> None:
    """Raises `BenchError` with what `gateway check` says against two workers."""
    site = lab.make_site("workers", store=lab.store.path)
    config = write_gateway_config(site, "off", workers=2)
    try:
        run((*COMMAND, "check", "-c", str(config)), timeout_s=60)
    except BenchError as error:
        raise BenchError(f"the configuration refuses two workers: {error}") from None


def one_worker(site: Site) -> Launch:
    """The gateway as it is measured elsewhere."""
    return launch_gateway(site)


def two_workers(site: Site) -> Launch:
    """The same with `workers: 2`."""
    return launch_gateway(site, workers=2)


def saturate(running: Running, lab: Lab) -> float:
    """Requests per second."""
    seen = running.saturate(VARIED, lab.plan.seconds)
    running.forget_log()
    return seen.requests_per_s


def cost(running: Running, lab: Lab, rate: float) -> float:
    """CPU time per request, in microseconds, at a constant rate."""
    running.steady(rate=rate, seconds=0.5, warmup_s=0.5)
    before = cpu_seconds(running.server.pid)
    seen = running.steady(rate=rate, seconds=lab.plan.steady_seconds, warmup_s=0)
    running.forget_log()
    return (cpu_seconds(running.server.pid) - before) * 1e6 / seen.answered
