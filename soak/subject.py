"""The gateway of a run: processes of its own, told what to do as operators tell them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from examples.ports import free_port
from soak.peers import PLATFORM, SUBJECT

REGISTRATION_TOKEN = "soak-registration"
ADMIN_TOKEN = "soak-admin"
CLIENT, SECRET = "soak", "soak-secret"
CACHE_ENTRIES = 500
"""Few enough to be full within the first minute, so that what grows later is no cache."""

H2_MAX_AGE_S = 5
"""Short, so that connections of HTTP/2 are drained again and again."""
PROCESS_PATIENCE_S = 300.0
"""For its start and its end, on a busy machine: a gateway that fails ends by itself before that."""
PEERS = """\
jwt_issuers:
  - name: platform
    issuer: {platform}
    jwks_uri: http://127.0.0.1:{port}/jwks
    audience: ["{url}"]
    access_tokens: false
workloads:
  - {{issuer: platform, subject: "{subject}", client_id: workload}}
upstreams:
  sockets: {{targets: ["http://127.0.0.1:{port}"]}}
"""
SOCKET_ROUTE = """\
  - {name: sockets, match: {path: /ws}, upstream: sockets}
"""
GRPC_UPSTREAM = """\
  grpc:
    targets: ["http://127.0.0.1:{port}"]
    protocol: http2
    timeouts: {{connect: 1s, response_head: 2s, idle: 5s, keepalive: 5s}}
routes:
"""
GRPC_ROUTE = """\
  - {name: grpc, match: {path: /soak.Proof}, upstream: grpc}
"""


class Subject:
    """A running `gateway run`."""

    def __init__(
        self,
        directory: Path,
        origin_port: int,
        *,
        workers: int,
        store: str,
        environment: Mapping[str, str] | None = None,
        grpc_port: int = 0,
        peers_port: int = 0,
    ) -> None:
        """The last two are those of a gRPC server, and of `Peers`, if there are any."""
        self._environment = environment or {}
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / "gateway.log"
        self.config = directory / "gateway.yaml"
        self.sound = f"""\
listen: {{host: 127.0.0.1, port: {self.port}, http2: {{max_age: {H2_MAX_AGE_S}s}}}}
admin: {{host: 127.0.0.1, port: {self.admin_port}, token: {ADMIN_TOKEN}}}
workers: {workers}
store: {store}
access_log: {{path: {directory}/access.log}}
provider:
  issuer: {self.url}
  registration: {{mode: token, token: {REGISTRATION_TOKEN}}}
cache: {{ttl: 5s, negative_ttl: 1s, max_entries: {CACHE_ENTRIES}}}
shutdown: {{delay: 0s, grace: 10s}}
upstreams:
  origin:
    targets: ["http://127.0.0.1:{origin_port}"]
    timeouts: {{connect: 1s, response_head: 2s, idle: 5s, keepalive: 5s}}
routes:
  - {{name: api, match: {{path: /api}}, upstream: origin, rewrite: {{strip_prefix: /api}}}}
  - name: keys
    match: {{path: /keys}}
    upstream: origin
    credentials: [api_key]
    rewrite: {{strip_prefix: /keys}}
  - {{name: mcp, match: {{path: /mcp}}, upstream: origin, mcp: {{tools: {{prove: []}}}}}}
"""
        if peers_port:
            peers = PEERS.format(platform=PLATFORM, subject=SUBJECT, port=peers_port, url=self.url)
            self.sound = self.sound.replace("upstreams:\n", peers) + SOCKET_ROUTE
        if grpc_port:
            upstream = GRPC_UPSTREAM.format(port=grpc_port)
            self.sound = self.sound.replace("routes:\n", upstream) + GRPC_ROUTE
        self.config.write_text(self.sound)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it is ready."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "gateway", "run", "-c", str(self.config)],
                stderr=log,
                env=os.environ | self._environment,
            )
        deadline = time.monotonic() + PROCESS_PATIENCE_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not start: {self.log()[-2000:]}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.admin_port}/readyz").status_code == 200
        return False

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PROCESS_PATIENCE_S)

    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")

    @property
    def processes(self) -> list[psutil.Process]:
        """The process, or the supervisor and its workers."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def reload(self, text: str) -> None:
        """Give it another configuration."""
        assert self.process is not None
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.config)
        self.process.send_signal(signal.SIGHUP)

    def kill_a_worker(self) -> bool:
        """kill -9 for one of several workers; whether there was one."""
        workers = [one for one in self.processes if "gateway.app.worker" in one.cmdline()]
        if len(workers) < 2:
            return False
        workers[0].kill()
        return True

    def create_client(self) -> None:
        """Register the client of the run."""
        response = httpx.post(
            f"{self.url}/createClient",
            json={"client_id": CLIENT, "client_secret": SECRET},
            headers={"Authorization": f"Bearer {REGISTRATION_TOKEN}"},
        )
        response.raise_for_status()

    async def issue(self, client: httpx.AsyncClient, **parameters: str) -> str:
        """A token."""
        response = await client.post(
            f"{self.url}/token",
            data={"grant_type": "client_credentials"} | parameters,
            auth=(CLIENT, SECRET),
        )
        response.raise_for_status()
        token: str = response.json()["access_token"]
        return token

    async def create_api_key(self, client: httpx.AsyncClient) -> str:
        """An API key of the client."""
        response = await client.post(
            f"http://127.0.0.1:{self.admin_port}/api/v1/clients/{CLIENT}/api-keys",
            json={"name": "soak"},
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        )
        response.raise_for_status()
        key: str = response.json()["api_key"]
        return key

    async def revoke(self, client: httpx.AsyncClient, token: str) -> None:
        """Revoke one."""
        response = await client.post(
            f"{self.url}/revoke", data={"token": token}, auth=(CLIENT, SECRET)
        )
        response.raise_for_status()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        async with httpx.AsyncClient() as client:
            page = (await client.get(f"http://127.0.0.1:{self.admin_port}/metrics")).text
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = [line for line in page.splitlines() if line.partition("{")[0].split()[0] == name]
        return sum(float(li.split()[-1]) for li in lines if all(one in li for one in wanted))


@contextmanager
def running(subject: Subject) -> Iterator[Subject]:
    """A started gateway, stopped in the end however that comes."""
    with ended(subject):
        subject.start()
        yield subject


@contextmanager
def ended(subject: Subject) -> Iterator[None]:
    """A gateway that runs no longer than the block, if it was started."""
    try:
        yield
    finally:
        if subject.process is not None and subject.process.poll() is None:
            subject.process.kill()
            subject.process.wait()
