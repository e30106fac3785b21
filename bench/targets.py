"""What the gateway is meant to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import (
    Figure,
    by_round,
    bytes_per_s,
    p99_us,
    ratio,
    requests_per_s,
    steady_by_round,
    summarise,
)
from bench.results import Results
from bench.subjects import aiohttp, caddy, gateway, nginx

GATEWAY, NO_LOG = gateway.GATEWAY.name, gateway.GATEWAY_NO_LOG.name
CACHED, CADDY, AIOHTTP = nginx.AUTH_CACHED.name, caddy.FORWARD_AUTH.name, aiohttp.PLAIN.name


@dataclass(frozen=True, slots=True)
class Target:
    """A bound, and where its figure comes from."""

    title: str
    bound: float
    is_floor: bool
    """Whether the figure should be at least the bound; otherwise at most."""
    unit: str
    measure: Callable[[Results], Figure | None]
    is_full_size: Callable[[Results], bool] = lambda results: True
    """Whether what was measured is what the bound is about: a quick run is smaller."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside its figure."""

    target: Target
    figure: Figure | None
    is_reached: bool | None
    """By the median; None where it was not measured, or not at its size."""
    is_clear: bool
    """Whether every round says the same."""


def evaluate(results: Results) -> list[Verdict]:
    """Every target."""
    return [_evaluate(target, results) for target in TARGETS]


def _evaluate(target: Target, results: Results) -> Verdict:
    figure = target.measure(results)
    if figure is None or not target.is_full_size(results):
        return Verdict(target, figure, None, False)

    def reaches(value: float) -> bool:
        return value >= target.bound if target.is_floor else value <= target.bound

    is_reached = reaches(figure.median)
    return Verdict(
        target, figure, is_reached, reaches(figure.low) == reaches(figure.high) == is_reached
    )


def _speed(
    workload: str, other: str, *, subject: str = GATEWAY, in_bytes: bool = False
) -> Callable[[Results], Figure | None]:
    take = bytes_per_s if in_bytes else requests_per_s
    return lambda results: ratio(
        by_round(results, subject, workload, take), by_round(results, other, workload, take)
    )


def _latency(at: str, other: str, other_at: str) -> Callable[[Results], Figure | None]:
    return lambda results: ratio(
        steady_by_round(results, GATEWAY, at, p99_us),
        steady_by_round(results, other, other_at, p99_us),
    )


def _measured(name: str) -> Callable[[Results], Figure | None]:
    return lambda results: (
        summarise(results.measurements[name].values) if name in results.measurements else None
    )


def _has(**sizes: float) -> Callable[[Results], bool]:
    return lambda results: all(
        name in results.measurements and results.measurements[name].values[0] >= size
        for name, size in sizes.items()
    )


TARGETS = (
    Target("GET over nginx cached auth_request: floor", 0.6, True, "x", _speed("get", CACHED)),
    Target("GET over nginx cached auth_request: aim", 1.0, True, "x", _speed("get", CACHED)),
    Target("GET over Caddy forward_auth", 2.5, True, "x", _speed("get", CADDY)),
    Target("GET over plain aiohttp", 3.0, True, "x", _speed("get", AIOHTTP)),
    Target(
        "100 KiB, bytes/s over nginx cached auth_request",
        0.6, True, "x", _speed("100k", CACHED, in_bytes=True),
    ),
    Target(
        "1 MiB, bytes/s over nginx cached auth_request",
        0.6, True, "x", _speed("1m", CACHED, in_bytes=True),
    ),
    Target("GET with access log over without", 0.9, True, "x", _speed("get", NO_LOG)),
    Target(
        "p99 over nginx cached auth_request, each at half of its own saturation",
        1.5, False, "x", _latency("own", CACHED, "own"),
    ),
    Target(
        "p99 over nginx cached auth_request, both at half of the gateway's saturation",
        1.5, False, "x", _latency("own", CACHED, "gateway"),
    ),
    Target(
        "10,000 idle connections", 300, False, "MiB", _measured("idle_mib"),
        _has(idle_connections=10_000),
    ),
    Target(
        "1,000,000 stored tokens, 100,000 of them cached", 400, False, "MiB",
        _measured("cache_mib"), _has(stored_tokens=1_000_000, cache_entries=100_000),
    ),
    Target(
        "start to ready on a store of 1,000,000 tokens", 1.0, False, "s", _measured("start_s"),
        _has(stored_tokens=1_000_000),
    ),
    Target("/token for a client that asks repeatedly", 1500, True, "1/s", _measured("token_per_s")),
    Target(
        "p99 with 50 callers of wrong secrets over without", 1.2, False, "x",
        _measured("attack_p99_ratio"),
    ),
    Target(
        "two workers over one, requests/s", 1.8, True, "x", _measured("workers_speed_ratio")
    ),
)  # fmt: skip
