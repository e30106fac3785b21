"""HTTP/2 and gRPC: the subjects that speak them, under the same load."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path

from bench.credentials import Credentials
from bench.h2_load import REQUESTS, Field, H2Load, Shape, write_h2_requests
from bench.lab import Lab, Running
from bench.processes import SEARCH_PATH, BenchError, Launch, Server
from bench.results import H2Sample, Results, Skip
from bench.subjects import GATEWAY, REFERENCE
from bench.subjects.envoy import JWT
from bench.usage import cpu_seconds
from bench.workloads import VARIED_PATH

SUBJECTS = (GATEWAY, REFERENCE, JWT)
SHAPES = (Shape(64, 16), Shape(4, 100))
METHOD = "/bench.Echo/Call"
MESSAGE = b"\0\0\0\0\x1e" + b"m" * 30
"""Of 30 bytes, with gRPC's prefix."""
RESPONSE = b"\0\0\0\0\x14" + b"r" * 20
KINDS = ("http2", "http2-varied", "grpc", "grpc-varied")
"""Of requests: a small GET, a unary call; one head again and again, or heads that vary."""


def measure_h2(lab: Lab, results: Results) -> None:
    """Add a sample for each subject, kind of request, shape and round. Raises `BenchError`."""
    load = H2Load.build(lab.directory, lab.placement.load)
    with grpc_origin(lab) as has_origin:
        kinds = [kind for kind in KINDS if has_origin or not kind.startswith("grpc")]
        if not has_origin:
            results.skipped.append(Skip("grpc", "nghttpd: apt-get install nghttp2-server"))
        for number in range(lab.plan.rounds):
            measure_round(lab, load, kinds, number, results)


def shapes_of(kind: str) -> tuple[Shape, ...]:
    """One head again and again is a footnote, measured in one shape."""
    return SHAPES if kind.endswith("varied") else SHAPES[-1:]


def measure_round(lab: Lab, load: H2Load, kinds: list[str], number: int, results: Results) -> None:
    """One round, in the opposite order every other time."""
    with ExitStack() as stack:
        running: list[Running] = []
        for subject in SUBJECTS:
            if lab.plan.subjects and subject.name not in lab.plan.subjects:
                continue
            try:
                running.append(stack.enter_context(lab.running(subject)))
            except (BenchError, OSError, HTTPException) as error:
                results.skipped.append(Skip(subject.name, f"HTTP/2: {error}"))
        for kind in kinds:
            for shape in shapes_of(kind):
                for one in reversed(running) if number % 2 else running:
                    try:
                        sample = take_sample(lab, load, one, kind=kind, shape=shape, number=number)
                    except BenchError as error:
                        where = f"{kind} {shape.name}, round {number + 1}"
                        results.skipped.append(Skip(one.subject.name, f"{where}: {error}"))
                        continue
                    results.h2.append(sample)
                    lab.report(
                        f"round {number + 1} of {lab.plan.rounds}  {kind:12} {shape.name:6}"
                        f" {one.subject.name:20} {sample.cpu_us:6.1f} us of CPU,"
                        f" {sample.requests_per_s:9,.0f} requests/s"
                        + (f"  {sample.errors} ERRORS" if sample.errors else "")
                    )


def take_sample(
    lab: Lab, load: H2Load, running: Running, *, kind: str, shape: Shape, number: int
) -> H2Sample:
    """One run. Raises `BenchError`."""
    requests = write_kind(running.site.directory / kind, kind, running.credentials)
    port = running.site.h2_port if running.subject.has_h2_port else running.site.port
    load.run(port, shape, requests, seconds=lab.plan.warmup_s)
    before = cpu_seconds(running.server.pid)
    seen = load.run(port, shape, requests, seconds=lab.plan.seconds)
    used = cpu_seconds(running.server.pid) - before
    running.forget_log()
    if not seen.requests:
        raise BenchError("it responded to nothing")
    return H2Sample(
        subject=running.subject.name,
        kind=kind,
        shape=shape.name,
        round=number,
        requests_per_s=seen.requests_per_s,
        cpu_us=used * 1e6 / seen.requests,
        p50_us=seen.p50_us,
        p99_us=seen.p99_us,
        errors=seen.errors,
    )


def write_kind(path: Path, kind: str, credentials: Credentials) -> Path:
    """The requests of a kind, unless they are there."""
    if path.exists():
        return path
    is_grpc, varies = kind.startswith("grpc"), kind.endswith("varied")
    constant: list[Field] = [
        (":method", "POST" if is_grpc else "GET"), (":scheme", "http"),
        (":authority", "bench.example"), ("user-agent", "bench/1.0"),
    ]  # fmt: skip
    if is_grpc:
        constant += [
            (":path", METHOD), ("content-type", "application/grpc"), ("te", "trailers"),
            ("grpc-accept-encoding", "identity, deflate, gzip"),
        ]  # fmt: skip
    if not varies:
        constant.append(("authorization", f"Bearer {credentials.token}"))
        if not is_grpc:
            constant.append((":path", VARIED_PATH))
        return write_h2_requests(path, constant, [], MESSAGE if is_grpc else b"")
    tokens = credentials.varied()
    varied: list[list[Field]] = [
        [
            *paths(one, is_grpc=is_grpc),
            ("authorization", f"Bearer {tokens[one % len(tokens)]}"),
            ("traceparent", f"00-4bf92f3577b34da6{one:016x}-{one * 31:016x}-01"),
            ("x-request-id", f"bench-{one}"),
        ]
        for one in range(REQUESTS)
    ]
    return write_h2_requests(path, constant, varied, MESSAGE if is_grpc else b"")


def paths(one: int, *, is_grpc: bool) -> list[Field]:
    """The path of a GET varies with its number, a method's does not."""
    path = f"{VARIED_PATH}/{one}?page={one % 97}&order={one * 7919:x}"
    return [] if is_grpc else [(":path", path)]


@contextmanager
def grpc_origin(lab: Lab) -> Iterator[bool]:
    """A gRPC service, made of nghttpd: a file, and `grpc-status: 0` behind it. Gives whether there
    is one."""
    if shutil.which("nghttpd", path=SEARCH_PATH) is None:
        yield False
        return
    site = lab.make_site("grpc-origin", port=lab.grpc_origin_port)
    path = site.directory / METHOD.removeprefix("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(RESPONSE)
    argv = ("nghttpd", "--no-tls", "--no-content-length", "--trailer", "grpc-status: 0", "-d",
            str(site.directory), "--max-concurrent-streams", "10000", str(site.port))  # fmt: skip
    server = Server(
        "the gRPC origin", Launch(argv, site.port), lab.placement.origin, site.directory
    )
    with server:
        wait_until_open(server, site.port)
        yield True


def wait_until_open(server: Server, port: int) -> None:
    """It speaks no HTTP/1.1, so it is ready when it accepts. Raises `BenchError`."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if not server.is_alive:
                raise BenchError(f"nghttpd did not start: {server.last_words()}") from None
            time.sleep(0.02)
            continue
        return
    raise BenchError("nghttpd does not listen")
