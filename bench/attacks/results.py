"""What attacks cost, as it is written to a file and shown in docs/explanation/security.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.report.tables import Table


@dataclass(frozen=True, slots=True)
class AttackFigures:
    """One attack."""

    name: str
    alone_ms: float
    """p99 of honest requests without it: the median of the rounds."""
    beside_ms: float
    """The same beside it."""
    ratios: list[float]
    """One over the other in each round, in order of size."""
    memory_mib: tuple[float, float]
    """Resident memory of the gateway before it, and the most of any round."""
    failures: int
    """Honest requests that failed, in all rounds."""
    ended: str = ""
    """The status or code that its connections end with, most often."""

    def show_ratios(self) -> str:
        """The median, and each round."""
        middle = self.ratios[len(self.ratios) // 2]
        return f"{middle:.1f} ({', '.join(f'{ratio:.1f}' for ratio in self.ratios)})"


@dataclass(frozen=True, slots=True)
class AttackResults:
    """All of a run."""

    date: str
    commit: str
    cores: int
    note: str
    """The conditions in words."""
    attacks: list[AttackFigures]


TITLES = {
    "slow_heads": "1,000 request heads, one byte per second each",
    "slow_bodies": "200 request bodies, one byte per second each",
    "endless_heads": "50 request heads without end, as fast as they are read",
    "slow_readers": "200 clients that request 64 MiB and read nothing",
    "pipelines": "50 clients that pipeline without end and read nothing",
    "unknown_tokens": "20 clients with random tokens",
    "wrong_secrets": "20 clients with wrong secrets, each with ever new ids and addresses",
    "attempts_at_the_cap": "100,000 connection attempts at a cap of 2,000 held connections",
    "h2_rapid_reset": "HTTP/2, 20 connections: streams opened and reset (Rapid Reset)",
    "h2_made_you_reset": "HTTP/2, 20 connections: windows of streams overflow (MadeYouReset)",
    "h2_continuations": "HTTP/2, 20 connections: CONTINUATION without end",
    "h2_settings": "HTTP/2, 20 connections: SETTINGS without end",
    "h2_pings": "HTTP/2, 20 connections: PING without end",
    "h2_priorities": "HTTP/2, 20 connections: PRIORITY without end",
    "h2_empty_data": "HTTP/2, 20 connections: empty DATA without end",
    "h2_hpack_bombs": "HTTP/2, 20 connections: heads of 14 KB that unpack to 40 MB",
    "h2_window_dribble": "HTTP/2, 20 connections: 64 MiB each, requested byte by byte",
    "h2_window_overflow": "HTTP/2, 20 connections: the connection's window overflows",
    "h2_zero_window": "HTTP/2, 2,000 streams: 64 MiB each, with a window of zero",
}


def attacks_table(results: AttackResults) -> Table:
    """The table of docs/explanation/security.md."""
    rows = [
        (
            TITLES[one.name],
            f"{one.alone_ms:.1f} ms",
            f"{one.beside_ms:.1f} ms",
            one.show_ratios(),
            f"{one.memory_mib[0]:.0f} to {one.memory_mib[1]:.0f} MiB",
            one.ended or "\N{EN DASH}",
            str(one.failures),
        )
        for one in results.attacks
    ]
    columns = (
        "attack",
        "p99 alone",
        "p99 beside",
        "ratio (rounds)",
        "memory",
        "ended by",
        "failed requests",
    )
    note = f"Measured on {results.date} at commit {results.commit}, {results.cores} cores. "
    return Table("attacks", "Attacks", columns, tuple(rows), note + results.note)


def read_attacks(path: Path) -> AttackResults:
    """Raises `OSError` and `msgspec.MsgspecError`."""
    return msgspec.json.decode(path.read_bytes(), type=AttackResults)


def write_attacks(results: AttackResults, path: Path) -> None:
    """Raises `OSError`."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
