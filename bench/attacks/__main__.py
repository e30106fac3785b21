"""Attacks on a gateway of its own, on loopback: what they cost honest requests, and memory.

    make attacks                                 # all of them, three rounds each
    python -m bench.attacks --only slow_heads --rounds 5
    make attacks RESULTS=bench/results/attacks.json && make bench-report    # for security.md

Each round measures honest requests on connections of their own, first alone, then beside the
attack, which a process of its own makes. Read the ratios: the times say more about the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import statistics
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.attacks.h2_attackers import H2_ATTACKS, H2Attack
from bench.attacks.honest import Honest
from bench.attacks.origin import serve_origin
from bench.attacks.results import AttackFigures, AttackResults, write_attacks
from bench.attacks.subject import attacked_gateway, come_first, give_way, keep_apart, start_process
from bench.cores import Cpus
from bench.machine import read_commit

ATTACKS = (
    "slow_heads", "slow_bodies", "slow_readers", "pipelines", "endless_heads", "unknown_tokens",
    "wrong_secrets", "attempts_at_the_cap", *H2_ATTACKS,
)  # fmt: skip


@dataclass
class Round:
    """Honest requests alone, then beside an attack."""

    alone_s: list[float] = field(default_factory=list)
    beside_s: list[float] = field(default_factory=list)
    failures: int = 0
    memory_before: int = 0
    memory_most: int = 0
    kernel_most: int = 0
    """In buffers of TCP, of all parties on this machine."""
    attempts: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """What the attacker saw its connections end by."""

    @property
    def slowdown(self) -> float:
        """p99 beside the attack, as a multiple of p99 alone."""
        return p99(self.beside_s) / p99(self.alone_s)


def p99(times: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(times, n=100)[98]


def kernel_memory() -> int:
    """Bytes that the kernel holds in buffers of TCP; 0 where it does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/sockstat").read_text().splitlines():
            if line.startswith("TCP:"):
                return int(line.split()[-1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _wait_for_attack(attacker: subprocess.Popen[str]) -> str:
    """Wait for the attacker to report that it has begun; returns that report."""
    for line in attacker.stdout or ():
        if json.loads(line)["done"]:
            return line
    return "{}"


async def _measure(name: str, seconds: float, cpus: Cpus | None) -> Round:
    """One round, on a gateway of its own."""
    found = Round()
    async with attacked_gateway(cpus) as (port, token, process):
        honest = Honest(port, token)
        await honest.connect()
        await honest.measure(0.5)
        found.alone_s = await honest.measure(seconds)
        found.memory_before = process.memory_info().rss
        attacker = start_process("--attack", name, "--port", str(port))

        async def watch() -> None:
            while True:
                found.memory_most = max(found.memory_most, process.memory_info().rss)
                found.kernel_most = max(found.kernel_most, kernel_memory())
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        begun = await asyncio.to_thread(_wait_for_attack, attacker)
        await asyncio.sleep(1)  # until all of its connections are there
        long = 10 if name == "attempts_at_the_cap" else 1
        found.beside_s = await honest.measure(seconds * long)
        watching.cancel()
        if attacker.poll() is not None:
            raise RuntimeError(f"the attacker has given up: {name}")
        attacker.kill()
        out, _ = await asyncio.to_thread(attacker.communicate)
        # The last line may have been cut by the kill.
        reported = json.loads(out.rpartition("\n")[0].rpartition("\n")[2] or begun)
        found.attempts = reported.get("done", 0)
        found.ended.update(reported.get("ended", {}))
        found.failures = honest.failures
        honest.close()
    return found


HEADINGS = (
    "Attack", "done", "p99 alone", "p99 beside", "ratio (each round)", "memory", "kernel",
    "failures", "ended by",
)  # fmt: skip


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def _most_frequent(found: list[Round]) -> str:
    """What ended the attacker's connections, if anything did."""
    ended = sum((one.ended for one in found), Counter[str]())
    return ended.most_common(1)[0][0] if ended else ""


async def _attack(name: str, port: int) -> None:
    """Attack until the process is killed, and print what was done so far."""
    attack = H2Attack(port)
    working = asyncio.create_task(getattr(attack, name)())
    while not working.done():
        print(json.dumps({"done": attack.done, "ended": attack.ended}), flush=True)
        if attack.done:
            give_way()
        await asyncio.sleep(0.2)
    await working


async def _run(names: list[str], *, rounds: int, seconds: float) -> AttackResults:
    load = os.getloadavg()[0]
    cpus = keep_apart()
    print(f"load average before: {load:.1f} on {os.cpu_count()} cores")
    _row(*HEADINGS)
    print("|---" * len(HEADINGS) + "|")
    figures = []
    for name in names:
        found = [await _measure(name, seconds, cpus) for _ in range(rounds)]
        one = AttackFigures(
            name=name,
            alone_ms=statistics.median(p99(one.alone_s) for one in found) * 1000,
            beside_ms=statistics.median(p99(one.beside_s) for one in found) * 1000,
            ratios=sorted(one.slowdown for one in found),
            memory_mib=(
                statistics.median(one.memory_before for one in found) / 2**20,
                max(one.memory_most for one in found) / 2**20,
            ),
            failures=sum(one.failures for one in found),
            ended=_most_frequent(found),
        )
        figures.append(one)
        _row(
            name.replace("_", " "),
            str(max(one.attempts for one in found)),
            f"{one.alone_ms:.1f} ms",
            f"{one.beside_ms:.1f} ms",
            one.show_ratios(),
            f"{one.memory_mib[0]:.0f} -> {one.memory_mib[1]:.0f} MiB",
            f"{max(one.kernel_most for one in found) / 2**20:.0f} MiB",
            str(one.failures),
            one.ended,
        )
    return AttackResults(
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        commit=read_commit(),
        cores=os.cpu_count() or 1,
        note=f"{rounds} round{'s'[: rounds > 1]} of {seconds:g} s; load before: {load:.1f}.",
        attacks=figures,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser("python -m bench.attacks", description=__doc__)
    parser.add_argument("--only", choices=ATTACKS, action="append", help="some of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--results", type=Path, help="file to write the figures to, JSON")
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--origin", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--hostile", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        asyncio.run(_attack(options.attack, options.port))
    elif options.origin:
        asyncio.run(serve_origin(give_way if options.hostile else come_first))
    else:
        come_first()
        names = options.only or list(ATTACKS)
        results = asyncio.run(_run(names, rounds=options.rounds, seconds=options.seconds))
        if options.results:
            write_attacks(results, options.results)


if __name__ == "__main__":
    main()
