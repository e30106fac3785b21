"""What the gateway holds: idle connections, a full cache; and how fast it starts."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack, suppress

from bench.constant_rate import Load, render_request, write_requests
from bench.lab import Lab, Running
from bench.processes import BenchError, Server, get
from bench.results import Measurement, Results
from bench.subjects import GATEWAY
from bench.usage import memory
from bench.workloads import SMALL_BODY, SMALL_PATH

FILL_RATE = 4000.0
"""Tokens that are new to the cache, per second."""
SPARE_DESCRIPTORS = 200


def measure_memory(lab: Lab, results: Results) -> None:
    """Add memory and start. Raises `BenchError`."""
    lab.report("memory: idle connections, then the token cache; then starts")
    add = results.measurements.__setitem__
    with lab.running(GATEWAY) as running:
        before = memory(running.server.pid)
        add("start_mib", Measurement((before.mib,), "MiB", before.kind))
        held, opened, note = hold_idle_connections(running, lab)
        add("idle_connections", Measurement((opened,), "connections", note))
        add("idle_mib", Measurement((held,), "MiB", before.kind))
    with lab.running(GATEWAY) as running:
        entries = fill_cache(running, lab)
        after = memory(running.server.pid)
        add("cache_entries", Measurement((entries,), "tokens"))
        add("stored_tokens", Measurement((lab.store.count,), "tokens"))
        add("cache_mib", Measurement((after.mib,), "MiB", after.kind))
    starts = [time_start(lab) for _ in range(lab.plan.starts)]
    add("start_s", Measurement(tuple(starts), "s"))


def hold_idle_connections(running: Running, lab: Lab) -> tuple[float, int, str]:
    """MiB with so many connections open, each of which has had a response; how many there
    were; and what became of one more."""
    wanted = lab.plan.idle_connections
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY:
        # The gateway keeps two for each connection.
        wanted = min(wanted, (hard - SPARE_DESCRIPTORS) // 2)
    request = render_request("GET", SMALL_PATH, running.authorization)
    with ExitStack() as stack:
        for _ in range(wanted):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", running.site.port), timeout=10)
            )
            connection.sendall(request)
            response = b""
            while not response.endswith(SMALL_BODY):
                piece = connection.recv(65536)
                if not piece:
                    raise BenchError(f"a connection was closed after {response[:80]!r}")
                response += piece
        one_more = "closed without an answer"
        with suppress(OSError):
            one_more = f"answered {get(running.site.port, SMALL_PATH, running.authorization)[0]}"
        return memory(running.server.pid).mib, wanted, f"one more is {one_more}"


def fill_cache(running: Running, lab: Lab) -> int:
    """Show the gateway so many tokens, each once; how many it then says are in its cache."""
    tokens = lab.store.read_tokens(lab.plan.cached_tokens)
    requests = write_requests(
        running.site.directory / "tokens.requests",
        (render_request("GET", SMALL_PATH, {"Authorization": f"Bearer {one}"}) for one in tokens),
    )
    seconds = len(tokens) / FILL_RATE
    seen = lab.constant_rate.run(Load(running.site.port, requests, FILL_RATE, seconds, warmup_s=0))
    if seen.errors:
        raise BenchError(f"{seen.errors} requests of {len(tokens)} failed: {seen.statuses}")
    return read_gauge(running.site.admin_port, "gateway_token_cache_entries")


def read_gauge(admin_port: int, name: str) -> int:
    """A metric of the gateway that has no labels. Raises `BenchError` where it is missing."""
    _, page = get(admin_port, "/metrics")
    for line in page.decode().splitlines():
        if line.startswith(f"{name} "):
            return int(float(line.split()[1]))
    raise BenchError(f"/metrics has no {name}")


def time_start(lab: Lab) -> float:
    """Seconds from the start of the process to `/readyz` answering 200, on the filled store."""
    site = lab.make_site("start", store=lab.store.path)
    server = Server("gateway", GATEWAY.launch(site), lab.placement.subject, site.directory)
    with server:
        return server.wait_until_ready(poll_s=0.002)
