"""What the gateway is meant to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import (
    Figure,
    by_round,
    cpu_us,
    h2_by_round,
    p99_us,
    ratio,
    steady_by_round,
    summarise,
)
from bench.results import Results
from bench.subjects import aiohttp, caddy, envoy, gateway, nginx

GATEWAY, NO_LOG = gateway.GATEWAY.name, gateway.GATEWAY_NO_LOG.name
CACHED, CADDY, AIOHTTP = nginx.AUTH_CACHED.name, caddy.FORWARD_AUTH.name, aiohttp.PLAIN.name
ENVOY = envoy.JWT.name


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


def _cost(
    workload: str, other: str, *, subject: str = GATEWAY
) -> Callable[[Results], Figure | None]:
    """CPU per request of another over the subject's."""
    return lambda results: ratio(
        by_round(results, other, workload, cpu_us), by_round(results, subject, workload, cpu_us)
    )


def _h2_cost(kind: str, other: str) -> Callable[[Results], Figure | None]:
    """CPU per request of the gateway over another's, in the shape where it is worst."""

    def measure(results: Results) -> Figure | None:
        figures = [
            ratio(
                h2_by_round(results, GATEWAY, kind, shape),
                h2_by_round(results, other, kind, shape),
            )
            for shape in sorted({one.shape for one in results.h2})
        ]
        return max(filter(None, figures), key=lambda one: one.median, default=None)

    return measure


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


_NGINX = "CPU of nginx cached auth_request over the gateway's"
_ENVOY = "CPU of Envoy jwt_authn over the gateway's"
_CADDY = "CPU of Caddy forward_auth over the gateway's"
_AIOHTTP = "CPU of plain aiohttp over the gateway's"
TARGETS = (
    Target(f"{_NGINX}: heads and responses vary", 0.9, True, "x", _cost("varied", CACHED)),
    Target(f"{_NGINX}: heads vary, floor", 0.9, True, "x", _cost("distinct", CACHED)),
    Target(f"{_NGINX}: heads vary, aim", 1.0, True, "x", _cost("distinct", CACHED)),
    Target(f"{_NGINX}: TLS 1.3, all varies", 0.9, True, "x", _cost("tls", CACHED)),
    Target(f"{_NGINX}: 100 KiB responses", 0.9, True, "x", _cost("100k", CACHED)),
    Target(f"{_NGINX}: 1 MiB responses", 0.9, True, "x", _cost("1m", CACHED)),
    Target(f"{_NGINX}: one head again and again", 1.0, True, "x", _cost("get", CACHED)),
    Target(f"{_ENVOY}: heads and responses vary", 2.0, True, "x", _cost("varied", ENVOY)),
    Target(f"{_CADDY}: heads and responses vary", 5.0, True, "x", _cost("varied", CADDY)),
    Target(f"{_AIOHTTP}: heads and responses vary", 5.0, True, "x", _cost("varied", AIOHTTP)),
    Target("CPU without an access log over with it", 0.9, True, "x", _cost("varied", NO_LOG)),
    Target("gRPC unary, metadata varies: CPU over nginx grpc_pass with cached auth_request",
           0.8, False, "x", _h2_cost("grpc-varied", CACHED)),
    Target("gRPC unary, metadata varies: CPU over Envoy jwt_authn", 0.5, False, "x",
           _h2_cost("grpc-varied", ENVOY)),
    Target("p99 over nginx cached auth_request, each at half of its own saturation",
           1.2, False, "x", _latency("own", CACHED, "own")),
    Target("p99 over nginx cached auth_request, both at half of the gateway's saturation",
           1.2, False, "x", _latency("own", CACHED, "gateway")),
    Target("memory, just started", 80, False, "MiB", _measured("start_mib")),
    Target("10,000 idle connections", 300, False, "MiB", _measured("idle_mib"),
           _has(idle_connections=10_000)),
    Target("1,000,000 stored tokens, 100,000 of them cached", 400, False, "MiB",
           _measured("cache_mib"), _has(stored_tokens=1_000_000, cache_entries=100_000)),
    Target("start to ready on a store of 1,000,000 tokens", 0.5, False, "s", _measured("start_s"),
           _has(stored_tokens=1_000_000)),
    Target("/token for a client that asks repeatedly", 2500, True, "1/s",
           _measured("token_per_s")),
    Target("p99 with 50 callers of wrong secrets over without", 1.2, False, "x",
           _measured("attack_p99_ratio")),
    Target("two workers over one, CPU per request", 1.05, False, "x",
           _measured("workers_cpu_ratio")),
    Target("two workers over one, requests/s", 1.8, True, "x", _measured("workers_speed_ratio")),
)  # fmt: skip
