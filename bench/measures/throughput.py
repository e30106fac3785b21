"""Every subject at saturation, in rounds, so that a machine that drifts drifts for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from http.client import HTTPException

from bench.cores import read_core_times, shares
from bench.lab import Lab, Running
from bench.processes import BenchError
from bench.results import Results, Sample, Skip
from bench.subjects import REFERENCE, Subject
from bench.usage import cpu_seconds, memory
from bench.workloads import VARIED, Workload


def measure_throughput(
    lab: Lab, subjects: Sequence[Subject], workloads: Sequence[Workload], results: Results
) -> None:
    """Add a sample for each subject, workload and round.

    A round starts every subject anew and goes through the workloads; within a workload all
    subjects follow each other, in the opposite order every other round.
    """
    left = list(subjects)
    for number in range(lab.plan.rounds):
        with ExitStack() as stack:
            running: dict[tuple[str, bool], Running] = {}
            for subject, is_tls in needed(tuple(left), workloads):
                if subject not in left:
                    continue
                try:
                    running[subject.name, is_tls] = stack.enter_context(
                        lab.running(subject, is_tls=is_tls)
                    )
                except (BenchError, OSError, HTTPException) as error:
                    left.remove(subject)
                    results.skipped.append(Skip(subject.name, str(error)))
            for workload in workloads:
                for subject, is_repeat in order_of(left, workload, number):
                    if subject not in left:
                        continue
                    try:
                        sample = take_sample(
                            lab, running[subject.name, workload.is_tls], workload, number,
                            is_repeat,
                        )  # fmt: skip
                    except (BenchError, OSError, HTTPException) as error:
                        left.remove(subject)
                        results.skipped.append(
                            Skip(subject.name, f"{workload.name}, round {number + 1}: {error}")
                        )
                        continue
                    results.samples.append(sample)
                    lab.report(
                        f"round {number + 1} of {lab.plan.rounds}  {workload.name:9}"
                        f" {subject.name:25} {sample.requests_per_s:9,.0f} requests/s"
                        + (f"  {sample.errors} ERRORS" if sample.errors else "")
                    )


def needed(
    subjects: Sequence[Subject], workloads: Sequence[Workload]
) -> Iterator[tuple[Subject, bool]]:
    """Which subjects are started, with TLS or without."""
    for subject in subjects:
        for is_tls in (False, True):
            if any(
                workload.is_tls == is_tls and workload.name in subject.workloads
                for workload in workloads
            ):
                yield subject, is_tls


def order_of(
    subjects: Sequence[Subject], workload: Workload, number: int
) -> Iterator[tuple[Subject, bool]]:
    """Who is measured after whom; true marks the reference's second time, which shows how far
    apart two measurements of one thing lie."""
    turn = [(subject, False) for subject in subjects if workload.name in subject.workloads]
    if workload is VARIED and REFERENCE in subjects:
        turn.append((REFERENCE, True))
    yield from reversed(turn) if number % 2 else turn


def take_sample(
    lab: Lab, running: Running, workload: Workload, number: int, is_repeat: bool
) -> Sample:
    """One run of wrk, and what it cost. Raises `BenchError`."""
    running.warm_up(workload)
    pid = running.server.pid
    cores, cpu, ours = read_core_times(), cpu_seconds(pid), lab.cpu_seconds()
    seen = running.saturate(workload, lab.plan.seconds)
    cores_after, cpu_after = read_core_times(), cpu_seconds(pid)
    ours = lab.cpu_seconds() - ours + cpu_after - cpu
    if not running.server.is_alive:
        raise BenchError(f"it ended: {running.server.last_words()}")
    if not seen.requests:
        raise BenchError("it answered nothing")
    held = memory(pid)
    running.forget_log()
    everywhere = shares(cores, cores_after, lab.placement.all_cpus)
    return Sample(
        subject=running.subject.name,
        workload=workload.name,
        round=number,
        is_repeat=is_repeat,
        requests_per_s=seen.requests_per_s,
        bytes_per_s=seen.bytes_per_s,
        p50_us=seen.p50_us,
        p99_us=seen.p99_us,
        cpu_us=(cpu_after - cpu) * 1e6 / seen.requests,
        memory_mib=held.mib,
        memory_kind=held.kind,
        subject_busy=shares(cores, cores_after, lab.placement.subject).busy,
        load_busy=shares(cores, cores_after, lab.placement.load).busy,
        foreign=max(0.0, everywhere.tasks - ours / everywhere.seconds),
        stolen=everywhere.stolen,
        errors=seen.socket_errors + seen.status_errors,
    )
