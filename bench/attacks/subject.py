"""The attacked gateway, in a process of its own, and what stands behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil

from bench.attacks.attackers import CAP
from bench.cores import Cpus, available_cpus
from bench.processes import pinned
from examples.ports import free_port

FIRST = 1
"""The lowest of the priorities above all others."""
START_TIMEOUT_S = 60.0
"""Secrets are hashed at the lowest priority: on a busy core, that takes long."""
CONFIG = """\
listen:
  host: 127.0.0.1
  port: {port}
  max_connections: {cap}
  timeouts: {{head: 2s, body: 2s}}
admin: {{host: 127.0.0.1, port: {admin}}}
store: sqlite:///{directory}/gateway.db
trusted_proxies: [127.0.0.0/16]
access_log: {{path: "{directory}/access.log"}}
provider:
  issuer: http://127.0.0.1:{port}
  registration: {{mode: token, token: bench-registration}}
upstreams:
  attacked: {{targets: ["http://127.0.0.1:{attacked}"]}}
  calm: {{targets: ["http://127.0.0.1:{calm}"]}}
routes:
  - {{name: open, match: {{path: /open}}, upstream: attacked, auth: none}}
  - {{name: api, match: {{path: /api}}, upstream: calm}}
"""


def _environment() -> dict[str, str]:
    """In which other processes import what this one does, compiled or not."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def keep_apart() -> Cpus | None:
    """Leave the last core to the gateway, and return it: this process and those that it starts use
    the others. None where there is no other."""
    available = available_cpus()
    if len(available) == 1:
        return None
    os.sched_setaffinity(0, available[:-1])
    return available[-1:]


def give_way() -> None:
    """Leave the core to honest callers whenever they have work: they stand for other machines,
    which an attack on the gateway does not slow down."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def come_first() -> None:
    """Run whenever there is work, where that is allowed, and no process that this one starts: for
    honest callers and their origin, which stand for other machines, too."""
    with contextlib.suppress(AttributeError, PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(FIRST))


def start_process(*arguments: str) -> subprocess.Popen[str]:
    """Another process of this bench."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.attacks", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(),
    )  # fmt: skip


def _start_gateway(config: Path, cpus: Cpus | None) -> subprocess.Popen[bytes]:
    argv = (sys.executable, "-P", "-m", "gateway", "run", "-c", str(config))
    with config.with_name("stderr.log").open("wb") as log:
        return subprocess.Popen(
            argv if cpus is None else pinned(argv, cpus),
            stderr=log,
            env=_environment(),
        )


@contextlib.asynccontextmanager
async def attacked_gateway(
    cpus: Cpus | None,
) -> AsyncIterator[tuple[int, str, psutil.Process]]:
    """A gateway with two origins, of which honest requests have one for themselves: what is
    measured is the gateway. Its port, a token, and its process."""
    origins = [
        start_process(*arguments) for arguments in (("--origin", "--hostile"), ("--origin",))
    ]
    ports = [origin.stdout.readline().strip() for origin in origins if origin.stdout]
    port, admin = free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.yaml"
        path.write_text(
            CONFIG.format(
                port=port, admin=admin, directory=directory, cap=CAP,
                attacked=ports[0], calm=ports[1],
            )
        )  # fmt: skip
        gateway = _start_gateway(path, cpus)
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", timeout=START_TIMEOUT_S
            ) as client:
                token = await _get_token(client, f"http://127.0.0.1:{admin}/readyz")
            yield port, token, psutil.Process(gateway.pid)
        finally:
            gateway.kill()
            gateway.wait()
            for origin in origins:
                origin.kill()
                origin.communicate()


async def _get_token(client: httpx.AsyncClient, ready: str) -> str:
    for _ in range(200):
        with contextlib.suppress(httpx.TransportError):
            if (await client.get(ready)).status_code == 200:
                break
        await asyncio.sleep(0.1)
    created = await client.post(
        "/createClient", json={"client_id": "honest", "client_secret": "honest-secret"},
        headers={"Authorization": "Bearer bench-registration"},
    )  # fmt: skip
    created.raise_for_status()
    response = await client.post(
        "/token", data={"grant_type": "client_credentials"}, auth=("honest", "honest-secret")
    )
    token: str = response.json()["access_token"]
    return token
