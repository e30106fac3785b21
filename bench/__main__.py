"""`make bench` and `make bench-report`."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from types import FrameType

from bench.attacks.results import attacks_table, read_attacks
from bench.cores import available_cpus, place
from bench.lab import Lab
from bench.machine import ROOT, read_machine
from bench.measures.growth import measure_growth
from bench.measures.h2 import measure_h2
from bench.measures.instructions import count_instructions
from bench.measures.latency import measure_latency
from bench.measures.memory import measure_memory
from bench.measures.throughput import measure_throughput
from bench.measures.token import measure_token
from bench.measures.workers import measure_workers
from bench.plan import FULL, PARTS, QUICK, Plan
from bench.processes import BenchError
from bench.report.markdown import render_markdown
from bench.report.plot import render_plot
from bench.report.quoted import stores_table
from bench.report.tables import Table
from bench.report.text import render_text
from bench.results import Results, Skip, SubjectFacts, read_results, read_stores, write_results
from bench.subjects import SUBJECTS
from bench.subjects.nginx import NGINX
from bench.workloads import WORKLOADS
from bench.wrk import WRK

RESULTS = ROOT / "bench" / "results"
DOCUMENTS = (
    *(
        ROOT / "docs" / name
        for name in (
            "explanation/performance.md",
            "explanation/security.md",
            "explanation/architecture.md",
            "guides/kubernetes.md",
        )
    ),
    ROOT / "README.md",
)
"""What quotes results, between marks that name a table."""
PLOT = ROOT / "docs" / "explanation" / "performance.svg"


def main() -> int:
    """Returns the exit status."""
    options = parse_options(sys.argv[1:])
    signal.signal(signal.SIGTERM, _leave)
    try:
        if options.command == "report":
            return report(options.results or RESULTS / "full.json")
        plan = make_plan(options)
        return measure(plan, options.results or RESULTS / f"{plan.mode}.json")
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _leave(number: int, frame: FrameType | None) -> None:
    # So that what was started is stopped, as after Ctrl-C.
    raise KeyboardInterrupt


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """What to do, how much of it, and where the results go."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the gateway and others.")
    parser.add_argument("command", choices=["run", "report"], nargs="?", default="run")
    parser.add_argument("--quick", action="store_true", help="below 3 minutes, to see it work")
    parser.add_argument("--rounds", type=int, help="of everything that goes in rounds")
    parser.add_argument("--seconds", type=int, help="of each run, at saturation or a constant rate")
    for name, known in (
        ("parts", PARTS),
        ("subjects", [subject.name for subject in SUBJECTS]),
        ("workloads", [workload.name for workload in WORKLOADS]),
    ):
        parser.add_argument(
            f"--{name}", nargs="+", choices=known, metavar="NAME", help=", ".join(known)
        )
    parser.add_argument("--first-port", type=int, help=f"of 1000 free ones ({FULL.first_port})")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON to write or to render")
    return parser.parse_args(arguments)


def make_plan(options: argparse.Namespace) -> Plan:
    """The quick or the full plan, with what was asked for otherwise."""
    plan = QUICK if options.quick else FULL
    changes: dict[str, object] = {
        name: tuple(value)
        for name in ("parts", "subjects", "workloads")
        if (value := getattr(options, name))
    }
    if options.first_port:
        changes["first_port"] = options.first_port
    if options.rounds:
        changes |= {"rounds": options.rounds, "steady_rounds": options.rounds}
        changes["growth_rounds"] = min(options.rounds, plan.growth_rounds)
    if options.seconds:
        changes |= {"seconds": options.seconds, "steady_seconds": options.seconds}
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def measure(plan: Plan, path: Path) -> int:
    """Everything in the plan, then the report; what was found is kept even if some of it fails."""
    for tool in (WRK, NGINX):
        if why := tool.missing():
            raise BenchError(f"{why} (load and origin can't do without)")
    placement = place(available_cpus())
    if placement is None:
        raise BenchError("at least two cores are needed: one for the subject, one for the load")
    results = Results(read_machine(placement), plan)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as directory:
        lab = Lab(plan, placement, Path(directory), report=_report)
        with lab.origin():
            measure_parts(lab, results)
    results.seconds = time.monotonic() - started
    write_results(results, path)
    print(render_text(results))
    print(f"The results are in {path}; `make bench-report RESULTS={path}` renders them.")
    return 0


def measure_parts(lab: Lab, results: Results) -> None:
    """Each part of the plan; one that can't be measured is skipped with its reason."""
    subjects = []
    for subject in SUBJECTS:
        if lab.plan.subjects and subject.name not in lab.plan.subjects:
            continue
        if why := subject.tool.missing():
            results.skipped.append(Skip(subject.name, why))
            _report(f"skipped: {subject.name}: {why}")
            continue
        subjects.append(subject)
        results.subjects.append(
            SubjectFacts(subject.name, subject.title, subject.read_version(), subject.settings)
        )
    workloads = [workload for workload in WORKLOADS if workload.name in lab.plan.workloads]
    parts: dict[str, Callable[[], None]] = {
        "throughput": lambda: measure_throughput(lab, subjects, workloads, results),
        "http2": lambda: measure_h2(lab, results),
        "latency": lambda: measure_latency(lab, results),
        "memory": lambda: measure_memory(lab, results),
        "token": lambda: measure_token(lab, results),
        "workers": lambda: measure_workers(lab, results),
        "growth": lambda: measure_growth(lab, results),
        "instructions": lambda: count_instructions(results),
    }
    for part, measure_part in parts.items():
        if part not in lab.plan.parts:
            continue
        try:
            measure_part()
        except (BenchError, OSError, HTTPException) as error:
            # The other parts, some of them long, are not to be lost to a connection that broke.
            why = str(error) or type(error).__name__
            results.skipped.append(Skip(part, why))
            _report(f"skipped: {part}: {why}")


def other_tables() -> list[Table]:
    """What other programs of the bench measured."""
    attacks = read_attacks(RESULTS / "attacks.json")
    return [attacks_table(attacks), stores_table(read_stores(RESULTS / "store.json"))]


def report(path: Path) -> int:
    """Render results into the documents that quote them, and the plot."""
    results = read_results(path)
    for document in DOCUMENTS:
        document.write_text(render_markdown(document.read_text(), results, other_tables()))
    PLOT.write_text(render_plot(results))
    print(f"{path} is now in {', '.join(map(str, (*DOCUMENTS, PLOT)))}")
    return 0


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
