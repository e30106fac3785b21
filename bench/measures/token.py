"""`/token`: how many a second, and what callers with wrong secrets do to everybody else."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from bench.constant_rate import Load, SteadyRun, parse_steady, render_request, write_requests
from bench.lab import Lab, Running
from bench.measures.latency import as_steady, half_of_saturation
from bench.processes import BenchError
from bench.results import Measurement, Results
from bench.subjects import GATEWAY
from bench.tokens import CLIENT_ID

GRANT = b"grant_type=client_credentials"
GUESSED_CLIENTS = 20_000
"""So many that the limit on failures, which counts by client and address, ends none of them."""
HEAD_START_S = 1.0
"""Of the wrong callers, before the others are watched."""


def measure_token(lab: Lab, results: Results) -> None:
    """Add both. Raises `BenchError`."""
    rates, p99s, ratios, guesses = [], [], [], []
    for number in range(lab.plan.steady_rounds):
        with lab.running(GATEWAY) as running:
            seen = request_tokens(running, lab)
            rates.append(seen.answered / lab.plan.seconds)
            p99s.append(seen.latency_ns.p99 / 1000)
            lab.report(f"round {number + 1} of {lab.plan.steady_rounds}  {rates[-1]:,.0f} tokens/s")
            rate = half_of_saturation(lab, running)
            calm = running.steady(rate=rate, seconds=lab.plan.steady_seconds)
            disturbed, attack = watch_under_attack(running, lab, rate)
            ratios.append(disturbed.latency_ns.p99 / calm.latency_ns.p99)
            guesses.append(attack.answered / (lab.plan.steady_seconds + HEAD_START_S))
            for at, run in (("calm", calm), ("attacked", disturbed)):
                results.steady.append(as_steady(GATEWAY.name, at, number, rate, run))
            lab.report(
                f"round {number + 1} of {lab.plan.steady_rounds}  at {rate:,.0f}/s: p99"
                f" {calm.latency_ns.p99 / 1000:,.0f} us, with wrong callers"
                f" {disturbed.latency_ns.p99 / 1000:,.0f} us"
            )
            statuses = ", ".join(f"{count} x {status}" for status, count in attack.statuses.items())
    add = results.measurements.__setitem__
    add("token_per_s", Measurement(tuple(rates), "1/s"))
    add("token_p99_us", Measurement(tuple(p99s), "us"))
    add("attack_p99_ratio", Measurement(tuple(ratios), "x"))
    add("attack_per_s", Measurement(tuple(guesses), "1/s", f"in the last round: {statuses}"))


def request_tokens(running: Running, lab: Lab) -> SteadyRun:
    """One client on many connections, as fast as responses come."""
    request = token_request(CLIENT_ID, lab.store.client_secret)
    seen = send(running, lab, [request], seconds=lab.plan.seconds)
    if seen.errors:
        raise BenchError(f"{seen.errors} of {seen.answered} calls failed: {seen.statuses}")
    return seen


def send(running: Running, lab: Lab, requests: Iterable[bytes], *, seconds: float) -> SteadyRun:
    """Send requests as fast as responses come."""
    path = write_requests(running.site.directory / "token.requests", requests)
    load = Load(running.site.port, path, 0, seconds, connections=lab.plan.connections)
    return lab.constant_rate.run(load)


def watch_under_attack(running: Running, lab: Lab, rate: float) -> tuple[SteadyRun, SteadyRun]:
    """What ordinary requests at a constant rate see while others guess secrets; and the others."""
    path = write_requests(
        running.site.directory / "guess.requests",
        (token_request(f"guess-{number}", "wrong") for number in range(GUESSED_CLIENTS)),
    )
    callers = lab.plan.wrong_callers
    seconds = lab.plan.steady_seconds + HEAD_START_S
    attack = lab.constant_rate.start(
        Load(running.site.port, path, 0, seconds, HEAD_START_S, callers, sources=callers)
    )
    try:
        seen = running.steady(rate=rate, seconds=lab.plan.steady_seconds, warmup_s=2 * HEAD_START_S)
        output, errors = attack.communicate(timeout=60)
    finally:
        attack.kill()
        attack.wait()
    if attack.returncode:
        raise BenchError(f"the wrong callers failed: {errors.strip()}")
    return seen, parse_steady(output)


def token_request(client_id: str, client_secret: str) -> bytes:
    """RFC 6749 section 4.4.2, with HTTP Basic."""
    credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
    headers = {
        "Authorization": f"Basic {credentials}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return render_request("POST", "/token", headers, GRANT)
