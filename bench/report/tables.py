"""The tables of the report, whatever they are then written as."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.figures import (
    Take,
    by_round,
    bytes_per_s,
    cpu_us,
    h2_by_round,
    noise,
    p99_us,
    ratio,
    requests_per_s,
    summarise,
)
from bench.measures.growth import CURVES
from bench.report.numbers import show_figure, show_number, show_share
from bench.results import GrowthPoint, Results
from bench.targets import CACHED, GATEWAY, Verdict, evaluate
from bench.workloads import WORKLOADS, Workload

MIB = 1 << 20
FULLY_BUSY = 0.9
TAKEN = 0.03
NOISE = 0.05
"""How far from 1 the reference over itself may be before the report warns of its figures."""
LOAD_BOUND = "†"
SETTINGS = ("auth", "access_log", "metrics", "buffering", "limits", "retries", "keep_alive", "tls")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title."""

    name: str
    """By which docs/explanation/performance.md asks for it."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def make_tables(results: Results) -> list[Table]:
    """Every table that there is something to tell in."""
    tables = [
        conditions(results),
        targets(results),
        *(throughput(results, workload) for workload in WORKLOADS),
        over_h2(results),
        latency(results),
        growth(results),
        alone(results),
        settings(results),
        skipped(results),
    ]
    return [table for table in tables if table.rows]


def conditions(results: Results) -> Table:
    """Machine, tree and day; and how far the machine can be trusted."""
    machine, plan, placement = results.machine, results.plan, results.machine.placement
    virtual = ", virtual" if machine.is_virtual else ""
    rows = [
        ("date", machine.date),
        ("commit", machine.commit or "unknown"),
        ("CPU", f"{machine.cpu}, {machine.cores} cores{virtual}, {machine.memory_gib:.0f} GiB"),
        ("kernel", machine.kernel),
        ("system", f"{machine.system}, Python {machine.python}"),
        (
            "cores",
            f"subject {_cpus(placement.subject)}, wrk {_cpus(placement.load)},"
            f" origin {_cpus(placement.origin)}",
        ),
        (
            "mode",
            f"{plan.mode}: {plan.rounds} rounds of {plan.seconds} s at saturation,"
            f" {plan.steady_rounds} of {plan.steady_seconds} s at a constant rate,"
            f" {plan.connections} connections, {results.seconds / 60:.0f} minutes",
        ),
        ("load average before", f"{machine.load_before:.2f}"),
    ]
    if results.samples:
        for title, shares in (
            ("others at work on these cores", [sample.foreign for sample in results.samples]),
            ("taken by the hypervisor", [sample.stolen for sample in results.samples]),
        ):
            typical, worst = show_share(statistics.median(shares)), show_share(max(shares))
            rows.append((title, f"{typical} of the time, at most {worst} of a run"))
    if figure := noise(results):
        rows.append(("noise: nginx cached auth over itself", show_figure(figure)))
    return Table("conditions", "Conditions", ("", ""), tuple(rows), doubts(results))


def doubts(results: Results) -> str:
    """Why nobody should rely on these figures; empty where nothing speaks against them."""
    reasons = []
    if results.plan.mode != "full":
        reasons.append(f"this was a {results.plan.mode} run")
    if results.samples:
        taken = statistics.median(one.foreign + one.stolen for one in results.samples)
        if taken > TAKEN:
            reasons.append(f"others took {show_share(taken)} of the cores' time")
    figure = noise(results)
    if figure and abs(figure.median - 1) > NOISE:
        reasons.append(f"the reference differs from itself by {show_figure(figure)}")
    return f"An order of magnitude, no more: {', and '.join(reasons)}." if reasons else ""


def _cpus(cpus: tuple[int, ...]) -> str:
    return "CPU " + ", ".join(map(str, cpus))


def targets(results: Results) -> Table:
    """What was to be reached, beside what was."""
    rows = [
        (
            verdict.target.title,
            f"{'at least' if verdict.target.is_floor else 'at most'}"
            f" {verdict.target.bound:,g} {verdict.target.unit}",
            show_figure(verdict.figure),
            show_verdict(verdict),
        )
        for verdict in evaluate(results)
    ]
    columns = ("target", "wanted", "measured", "")
    return Table("targets", "Targets", columns, tuple(rows), doubts(results))


def show_verdict(verdict: Verdict) -> str:
    """In a word or two."""
    if verdict.figure is None:
        return "not measured"
    if verdict.is_reached is None:
        return "not measured at this size"
    text = "reached" if verdict.is_reached else "not reached"
    return text if verdict.is_clear else f"{text} (not in every round)"


def throughput(results: Results, workload: Workload) -> Table:
    """The subjects of a workload, the fastest first."""
    unit = "MiB/s" if workload.counts_bytes else "requests/s"
    take = bytes_per_s if workload.counts_bytes else requests_per_s

    def shown(subject: str, taken: Take) -> str:
        return show_figure(summarise(by_round(results, subject, workload.name, taken).values()))

    def scaled(subject: str) -> dict[int, float]:
        rounds = by_round(results, subject, workload.name, take)
        return {
            number: value / MIB if workload.counts_bytes else value
            for number, value in rounds.items()
        }

    rows, has_load_bound = [], False
    gateway, cost = by_round(results, GATEWAY, workload.name, take), _costs(results, workload)
    for subject, used in sorted(cost.items(), key=lambda entry: _median(entry[1])):
        speed = by_round(results, subject, workload.name, take)
        busy = summarise(
            by_round(results, subject, workload.name, lambda one: one.subject_busy).values()
        )
        is_load_bound = busy is not None and busy.median < FULLY_BUSY
        has_load_bound |= is_load_bound
        is_ours = subject == GATEWAY
        rows.append(
            (
                results.title_of(subject) + (f" {LOAD_BOUND}" if is_load_bound else ""),
                show_figure(summarise(used.values())),
                "1" if is_ours else show_figure(ratio(used, cost.get(GATEWAY, {}))),
                show_figure(summarise(scaled(subject).values())),
                "1" if is_ours else show_figure(ratio(gateway, speed)),
                shown(subject, lambda one: one.p50_us),
                shown(subject, p99_us),
                shown(subject, lambda one: one.memory_mib) + " " + _memory_kind(results, subject),
                str(_errors(results, subject, workload)),
            )
        )
    note = (
        f"{LOAD_BOUND} Its core was not fully busy: load and origin were what ran out, and it"
        " could do more. CPU per request is not affected."
        if has_load_bound
        else ""
    )
    columns = (
        "", "CPU µs/request", "over the gateway's", unit, "the gateway's over it", "p50 µs",
        "p99 µs", "memory MiB", "errors",
    )  # fmt: skip
    return Table(workload.name, workload.title, columns, tuple(rows), note)


def _costs(results: Results, workload: Workload) -> dict[str, dict[int, float]]:
    costs = {
        one.name: by_round(results, one.name, workload.name, cpu_us) for one in results.subjects
    }
    return {name: cost for name, cost in costs.items() if cost}


def _median(rounds: dict[int, float]) -> float:
    return statistics.median(rounds.values())


H2_TITLES = {
    "http2": "HTTP/2, GET, one head again and again",
    "http2-varied": "HTTP/2, GET, heads and responses vary",
    "grpc": "gRPC, unary, the same metadata again and again",
    "grpc-varied": "gRPC, unary, metadata varies",
}


def over_h2(results: Results) -> Table:
    """The runs over HTTP/2, by kind of request and shape."""
    rows = []
    for kind, title in H2_TITLES.items():
        for shape in dict.fromkeys(one.shape for one in results.h2):
            cost = {
                one.name: rounds
                for one in results.subjects
                if (rounds := h2_by_round(results, one.name, kind, shape))
            }
            for subject, used in sorted(cost.items(), key=lambda entry: _median(entry[1])):
                runs = [
                    one
                    for one in results.h2
                    if (one.subject, one.kind, one.shape) == (subject, kind, shape)
                ]
                is_ours = subject == GATEWAY
                rows.append(
                    (
                        f"{title}, {shape}",
                        results.title_of(subject),
                        show_figure(summarise(used.values())),
                        "1" if is_ours else show_figure(ratio(used, cost.get(GATEWAY, {}))),
                        show_figure(summarise(one.requests_per_s for one in runs)),
                        show_figure(summarise(one.p99_us for one in runs)),
                        str(sum(one.errors for one in runs)),
                    )
                )
    columns = (
        "requests, connections x streams", "subject", "CPU µs/request", "over the gateway's",
        "requests/s", "p99 µs", "errors",
    )  # fmt: skip
    return Table("http2", "HTTP/2 and gRPC", columns, tuple(rows))


def growth(results: Results) -> Table:
    """The curves: a row each."""
    rows = []
    for curve in CURVES:
        points: dict[int, list[GrowthPoint]] = {}
        for one in results.growth:
            if one.curve == curve.name:
                points.setdefault(one.size, []).append(one)
        if not points:
            continue
        by_size = {size: {one.round: one.cpu_us for one in points[size]} for size in sorted(points)}
        smallest, largest = min(points), max(points)
        held = (max(one.memory_mib for one in points[size]) for size in (smallest, largest))
        rows.append(
            (
                curve.title,
                "; ".join(
                    f"{size:,}: {show_figure(summarise(rounds.values()))}"
                    for size, rounds in by_size.items()
                ),
                show_figure(ratio(by_size[largest], by_size[smallest])),
                " to ".join(f"{mib:.0f}" for mib in held),
                str(sum(one.errors for found in points.values() for one in found)),
            )
        )
    columns = ("of", "CPU µs/request at each size", "largest over smallest", "memory MiB", "errors")
    return Table("growth", "How cost grows", columns, tuple(rows))


def _memory_kind(results: Results, subject: str) -> str:
    return next(one.memory_kind for one in results.samples if one.subject == subject)


def _errors(results: Results, subject: str, workload: Workload) -> int:
    return sum(
        one.errors
        for one in results.samples
        if (one.subject, one.workload) == (subject, workload.name)
    )


STEADY_RUNS = (
    (GATEWAY, "own", "at half of its own saturation"),
    (CACHED, "own", "at half of its own saturation"),
    (CACHED, "gateway", "at half of the gateway's saturation"),
    (GATEWAY, "calm", "at half of its saturation, before the wrong callers"),
    (GATEWAY, "attacked", "at the same rate, while they call"),
)
STEADY_FIELDS = ("rate", "p50_us", "p99_us", "p99_9_us", "max_us", "lag_p99_us")


def latency(results: Results) -> Table:
    """The runs at a constant rate."""
    rows = []
    for subject, at, title in STEADY_RUNS:
        runs = [run for run in results.steady if (run.subject, run.at) == (subject, at)]
        if runs:
            figures = (
                show_figure(summarise(getattr(run, field) for run in runs))
                for field in STEADY_FIELDS
            )
            errors = sum(run.errors for run in runs)
            rows.append((f"{results.title_of(subject)}, {title}", *figures, str(errors)))
    columns = ("", "rate 1/s", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "generator p99 µs")
    return Table(
        "latency",
        "Latency at a constant rate, from when a request was due",
        (*columns, "errors"),
        tuple(rows),
        "Generator: how late the load generator itself was. Where that is not small beside p99,"
        " others were at work on its core, and p99 is theirs as well.",
    )


ALONE = {
    "start_s": "start to ready",
    "start_mib": "memory, just started",
    "idle_connections": "idle keep-alive connections",
    "idle_mib": "memory with them open",
    "stored_tokens": "live tokens in the store",
    "cache_entries": "tokens in the cache",
    "cache_mib": "memory with them cached",
    "token_per_s": "/token, one client, 64 connections",
    "token_p99_us": "/token, p99",
    "attack_per_s": "/token, responses to callers of wrong secrets",
    "attack_p99_ratio": "p99 of proxied requests with them over without",
    "workers_cpu_ratio": "two workers",
    "workers_speed_ratio": "two workers",
}


def alone(results: Results) -> Table:
    """What only the gateway is asked."""
    rows = [
        (title, f"{show_figure(summarise(measured.values))} {measured.unit}", measured.note)
        for name, title in ALONE.items()
        if (measured := results.measurements.get(name))
    ]
    return Table("gateway", "The gateway alone", ("", "measured", ""), tuple(rows))


def settings(results: Results) -> Table:
    """What was on and off in each subject."""
    measured = {one.subject for one in results.samples} | {one.subject for one in results.steady}
    rows = [
        (f"{one.title} ({one.version})", *(getattr(one.settings, name) for name in SETTINGS))
        for one in results.subjects
        if one.name in measured
    ]
    columns = ("", *(name.replace("_", " ").replace("tls", "TLS") for name in SETTINGS))
    return Table("settings", "What was on and off", columns, tuple(rows))


def skipped(results: Results) -> Table:
    """What is missing, and why."""
    rows = [(results.title_of(skip.what), skip.why) for skip in results.skipped]
    return Table("skipped", "Not measured", ("", "why"), tuple(rows))


def show_rate(value: float) -> str:
    """A short number for a plot."""
    return f"{value / 1000:.1f}k" if value >= 1000 else show_number(value)
