"""Curves: what a request costs as the configuration, the store or the requests grow.

Each point is a gateway of its own on one core, loaded for a moment with requests that the curve
makes larger or more in number; everything else is as small as it gets. A curve that rises shows
work whose cost depends on the size: it should be flat, but for header fields and bodies, which are
bytes to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException

from bench.constant_rate import Load, render_request, write_requests
from bench.lab import Lab
from bench.processes import BenchError, Server
from bench.results import GrowthPoint, Results, Skip
from bench.subjects import GATEWAY, Site
from bench.subjects.gateway import run_gateway, write_gateway_config
from bench.subjects.nginx import launch_nginx
from bench.tokens import copy_clients, make_store
from bench.usage import cpu_seconds, memory
from bench.workloads import SMALL_PATH

SPREAD = 997
"""Of many requests in turn, this many are written: a prime, so that every part is asked for."""


@dataclass(frozen=True, slots=True)
class Point:
    """One size of one thing, made ready."""

    requests: list[bytes]
    """Sent in turn."""
    config: dict[str, object] = field(default_factory=dict)
    """What the configuration has more, by the names in `configs/gateway.yaml`."""
    connections: int = 64


@dataclass(frozen=True, slots=True)
class Curve:
    """One thing that grows."""

    name: str
    title: str
    sizes: tuple[int, ...]
    make: Callable[[Lab, Site, int], Point]


def measure_growth(lab: Lab, results: Results) -> None:
    """Add a point for each curve, size and round."""
    with many_targets(lab):
        measure_curves(lab, results)


def measure_curves(lab: Lab, results: Results) -> None:
    """All of them, in rounds, every other time from the largest size down."""
    for number in range(lab.plan.growth_rounds):
        for curve in CURVES:
            for size in reversed(curve.sizes) if number % 2 else curve.sizes:
                try:
                    point = measure_point(lab, curve, size, number)
                except (BenchError, OSError, HTTPException) as error:
                    results.skipped.append(Skip(f"growth of {curve.name} to {size:,}", str(error)))
                    continue
                results.growth.append(point)
                lab.report(
                    f"round {number + 1} of {lab.plan.growth_rounds}  {curve.name:13}"
                    f" {size:9,} {point.cpu_us:6.1f} us of CPU, {point.memory_mib:.0f} MiB"
                    + (f"  {point.errors} ERRORS" if point.errors else "")
                )


def measure_point(lab: Lab, curve: Curve, size: int, number: int) -> GrowthPoint:
    """One gateway under load. Raises `BenchError`."""
    site = lab.make_site(f"growth-{curve.name}", store=lab.store.path)
    point = curve.make(lab, site, size)
    launch = run_gateway(site, write_gateway_config(site, site.access_log, more=point.config))
    requests = write_requests(site.directory / "requests", point.requests)
    server = Server(GATEWAY.name, launch, lab.placement.subject, site.directory)
    with server:
        server.wait_until_ready()

        def load(seconds: float) -> int:
            run = Load(site.port, requests, 0, seconds, 0, point.connections)
            seen = lab.constant_rate.run(run)
            errors.append(seen.errors - seen.unanswered)
            return seen.answered

        errors: list[int] = []
        # Each of the requests once, so that what can be cached is.
        load(max(lab.plan.warmup_s, len(point.requests) / 4000))
        before = cpu_seconds(server.pid)
        answered = load(lab.plan.seconds)
        used = cpu_seconds(server.pid) - before
        if not answered:
            raise BenchError("it responded to nothing")
        held = memory(server.pid).mib
    return GrowthPoint(curve.name, size, number, used * 1e6 / answered, held, sum(errors))


def _get(path: str, token: str, fields: Iterable[tuple[str, str]] = ()) -> bytes:
    return render_request("GET", path, {"Authorization": f"Bearer {token}", **dict(fields)})


def _spread(size: int) -> range:
    """Some of so many, the last one among them."""
    return range(size - 1, -1, -max(1, size // SPREAD))


def _routes(lab: Lab, site: Site, size: int) -> Point:
    routes = (_route(f"r{one}", "origin") for one in range(size))
    requests = [_get(f"{SMALL_PATH}/r{one}", lab.store.token) for one in _spread(size)]
    return Point(requests, {"MORE_ROUTES": "".join(routes)})


def _upstreams(lab: Lab, site: Site, size: int) -> Point:
    upstreams = (f'  u{one}: {{targets: ["http://{site.origin}"]}}\n' for one in range(size))
    routes = (_route(f"u{one}", f"u{one}") for one in range(size))
    requests = [_get(f"{SMALL_PATH}/u{one}", lab.store.token) for one in _spread(size)]
    return Point(requests, {"MORE_UPSTREAMS": "".join(upstreams), "MORE_ROUTES": "".join(routes)})


def _route(name: str, upstream: str) -> str:
    return (
        f"  - {{name: {name}, match: {{path: {SMALL_PATH}/{name}}}, upstream: {upstream},"
        " scopes: [bench]}\n"
    )


def _targets(lab: Lab, site: Site, size: int) -> Point:
    targets = [f"http://{_address(one)}:{lab.many_port}" for one in range(size)]
    return Point(
        [_get(SMALL_PATH, lab.store.token)],
        {"TARGETS": ", ".join(f'"{target}"' for target in targets)},
    )


def _clients(lab: Lab, site: Site, size: int) -> Point:
    own = lab.make_site(f"clients-{size}")
    store = make_store(own, 1)
    tokens = copy_clients(store.path, store.token, size)
    return Point([_get(SMALL_PATH, token) for token in tokens], {"STORE": store.path})


def _tokens(lab: Lab, site: Site, size: int) -> Point:
    return Point([_get(SMALL_PATH, token) for token in lab.store.read_tokens(size)])


def _connections(lab: Lab, site: Site, size: int) -> Point:
    return Point([_get(SMALL_PATH, lab.store.token)], connections=size)


def _fields(lab: Lab, site: Site, size: int) -> Point:
    return Point(
        [
            _get(SMALL_PATH, lab.store.token, ((f"X-Field-{n}", f"{one * n}") for n in range(size)))
            for one in range(SPREAD)
        ]
    )


def _bodies(lab: Lab, site: Site, size: int) -> Point:
    head = {"Authorization": f"Bearer {lab.store.token}"}
    return Point([render_request("POST", SMALL_PATH, head, b"x" * size)])


CURVES = (
    Curve("routes", "routes", (1, 10, 100, 1000), _routes),
    Curve("upstreams", "upstreams, each with a route", (1, 10, 100, 1000), _upstreams),
    Curve("targets", "targets of an upstream", (1, 8, 64, 512), _targets),
    Curve("clients", "clients, a token each", (1, 100, 10_000), _clients),
    Curve("tokens", "tokens in use", (1, 100, 10_000, 50_000), _tokens),
    Curve("connections", "connections", (1, 16, 256, 1024), _connections),
    Curve("fields", "header fields that vary", (1, 10, 40, 90), _fields),
    Curve("bodies", "bytes of a request body", (1, 1024, 16_384, 262_144), _bodies),
)


@contextmanager
def many_targets(lab: Lab) -> Iterator[None]:
    """The origin of the curve over targets, which listens on many addresses of loopback."""
    most = next(curve.sizes[-1] for curve in CURVES if curve.name == "targets")
    site = lab.make_site("targets", port=lab.many_port)
    listens = "\n".join(f"        listen {_address(one)}:{site.port};" for one in range(most))
    launch = launch_nginx(site, "origin-many.conf", LISTENS=listens)
    with Server("the targets", launch, lab.placement.origin, site.directory) as server:
        server.wait_until_ready()
        yield


def _address(number: int) -> str:
    return f"127.1.{number // 250}.{1 + number % 250}"
