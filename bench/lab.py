"""Where subjects are started and put under load: the origin, the tokens, the tools."""

from __future__ import annotations

import itertools
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.constant_rate import ConstantRate, Load, SteadyRun, render_request, write_requests
from bench.cores import Cpus, Placement
from bench.credentials import Credentials, make_certificate, make_jwts
from bench.plan import Plan
from bench.processes import BenchError, Launch, Server, get
from bench.subjects import Site, Subject
from bench.subjects.nginx import launch_nginx
from bench.tokens import TokenStore, make_store
from bench.usage import children_cpu_seconds, cpu_seconds
from bench.workloads import FILES, SMALL_PATH, Workload
from bench.wrk import WrkRun, run_wrk

PORTS = 980
"""How many ports of a run are used before the first one is used again."""

Report = Callable[[str], None]


class Running:
    """A started subject."""

    def __init__(self, subject: Subject, site: Site, server: Server, lab: Lab) -> None:
        self.subject = subject
        self.site = site
        self.server = server
        self._lab = lab

    def check(self) -> None:
        """See that it forwards, and that it refuses where it should. Raises `BenchError`."""
        path, is_tls = self.subject.prefix + SMALL_PATH, self.site.is_tls
        status, body = get(self.site.port, path, self.authorization, is_tls=is_tls)
        if (status, body) != (200, self.subject.body):
            raise BenchError(f"{self.subject.name} responds {status} with {body[:80]!r}")
        status, _ = get(self.site.port, path, is_tls=is_tls)
        if self.subject.checks_tokens and status != 401:
            raise BenchError(f"{self.subject.name} lets a request without a token pass: {status}")
        if not self.server.is_alive:
            raise BenchError(f"{self.subject.name} ended: {self.server.last_words()}")

    @property
    def credentials(self) -> Credentials:
        """The tokens that it takes."""
        return self._lab.credentials(self.subject)

    @property
    def authorization(self) -> dict[str, str]:
        """The field that lets a request pass."""
        return {"Authorization": f"Bearer {self.credentials.token}"}

    def warm_up(self, workload: Workload) -> None:
        """Load it with the workload for a moment, until caches and pools are filled."""
        if workload.is_tls:
            self.saturate(workload, 1)  # the shortest that wrk can do
        else:
            self.steady(rate=0, seconds=self._lab.plan.warmup_s, warmup_s=0, path=workload.path)

    def saturate(self, workload: Workload, seconds: int) -> WrkRun:
        """Load it with as much as it takes."""
        return run_wrk(
            self.site.port,
            workload,
            seconds=seconds,
            connections=self._lab.plan.connections,
            cpus=self._lab.placement.load,
            credentials=self.credentials,
            prefix=self.subject.prefix,
        )

    def steady(
        self, *, rate: float, seconds: float, warmup_s: float | None = None, path: str = SMALL_PATH
    ) -> SteadyRun:
        """GET a path at a constant rate; with rate 0, as fast as responses come.

        The warm-up is the plan's unless it is given.
        """
        if warmup_s is None:
            warmup_s = self._lab.plan.steady_warmup_s
        request = render_request("GET", self.subject.prefix + path, self.authorization)
        requests = write_requests(self.site.directory / "requests", [request])
        load = Load(self.site.port, requests, rate, seconds, warmup_s, self._lab.plan.connections)
        return self._lab.constant_rate.run(load)

    def forget_log(self) -> None:
        """Cut its access log, which would fill the disk."""
        if self.site.access_log.exists():
            os.truncate(self.site.access_log, 0)


class Lab:
    """One origin for all subjects, one store for all gateways, and everything on its cores."""

    def __init__(self, plan: Plan, placement: Placement, directory: Path, report: Report) -> None:
        self.plan = plan
        self.placement = placement
        self.directory = directory
        self.report = report
        self._origin_port, self._auth_port = plan.first_port, plan.first_port + 1
        self._ports = itertools.cycle(range(plan.first_port + 12, plan.first_port + PORTS, 4))
        self._origin_pid = 0
        self.grpc_origin_port, self.many_port = plan.first_port + 4, plan.first_port + 8
        self._store: TokenStore | None = None
        self._jwts, self._jwks = make_jwts(directory)
        make_certificate(directory)
        self._constant_rate: ConstantRate | None = None

    @property
    def store(self) -> TokenStore:
        """The gateway's tokens; made when they are first asked for."""
        if self._store is None:
            self.report(f"writing {self.plan.stored_tokens:,} tokens into the gateway's store")
            self._store = make_store(self.make_site("store"), self.plan.stored_tokens)
        return self._store

    @property
    def constant_rate(self) -> ConstantRate:
        """The load generator; built when it is first asked for. Raises `BenchError`."""
        if self._constant_rate is None:
            self._constant_rate = ConstantRate.build(self.directory, self.placement.load)
        return self._constant_rate

    def credentials(self, subject: Subject) -> Credentials:
        """The tokens that a subject takes."""
        if subject.takes_jwts:
            return self._jwts
        return Credentials(self.store.token, self.store.token_file)

    @contextmanager
    def origin(self) -> Iterator[None]:
        """The service behind everything, while the context is open."""
        site = self.make_site("origin", port=self._origin_port)
        files = site.directory / "files"
        files.mkdir()
        for name, size in FILES.items():
            (files / name).write_bytes(secrets.token_bytes(size))
        launch = launch_nginx(site, "origin.conf", AUTH_PORT=self._auth_port)
        with Server("the origin", launch, self.placement.origin, site.directory) as server:
            server.wait_until_ready()
            self._origin_pid = server.pid
            yield

    def cpu_seconds(self) -> float:
        """What the origin and the load have used so far."""
        return cpu_seconds(self._origin_pid) + children_cpu_seconds()

    @contextmanager
    def running(
        self,
        subject: Subject,
        launch: Callable[[Site], Launch] | None = None,
        *,
        cpus: Cpus | None = None,
        is_tls: bool = False,
    ) -> Iterator[Running]:
        """A subject that is started, ready and seen to work. Raises `BenchError`."""
        if why := subject.tool.missing():
            raise BenchError(why)
        site = self.make_site(subject.name, store=self.store.path, is_tls=is_tls)
        server = Server(
            subject.name,
            (launch or subject.launch)(site),
            cpus or self.placement.subject,
            site.directory,
        )
        with server:
            server.wait_until_ready()
            running = Running(subject, site, server, self)
            running.check()
            yield running

    def make_site(
        self,
        name: str,
        *,
        port: int | None = None,
        store: Path | None = None,
        is_tls: bool = False,
    ) -> Site:
        """A directory and four ports of its own."""
        port = port or next(self._ports)
        for taken in range(port, port + 4):
            _check_port(taken)
        directory = self.directory / f"{name}-{port}"
        directory.mkdir(exist_ok=True)
        return Site(
            directory=directory,
            port=port,
            admin_port=port + 1,
            origin=f"127.0.0.1:{self._origin_port}",
            auth=f"127.0.0.1:{self._auth_port}",
            store=store or directory / "gateway.db",
            grpc_origin=f"127.0.0.1:{self.grpc_origin_port}",
            certificate=self.directory,
            is_tls=is_tls,
            jwks=self._jwks,
        )


def _check_port(port: int) -> None:
    """Another's server there would be measured in place of ours. Raises `BenchError`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BenchError(f"port {port} is not free: {error.strerror}") from None
