"""A gateway of several processes: they share the load, and one that dies is missed by nobody."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clients.load_client import LoadClient, completed_by
from support.deadlines import scaled, wait_until
from support.processes.gateway import GatewayProcess, gateway_process
from support.running_gateway import ADMIN_TOKEN, REGISTRATION_TOKEN, make_config
from support.servers.raw_upstream import RawUpstream, thread_upstream
from support.tiers import slow

from examples.ports import free_port

pytestmark = pytest.mark.system

WORKERS = 2
CONNECTIONS = 32
"""So many that none of the workers is left out, unless by a chance of one in 2**31."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with thread_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """One for all tests that leave it as they found it."""
    with start_gateway(tmp_path_factory.mktemp("gateway"), upstream) as running:
        yield running


@pytest.fixture
def own_gateway(upstream: RawUpstream, tmp_path: Path) -> Iterator[GatewayProcess]:
    """One for a test that ends it."""
    with start_gateway(tmp_path, upstream) as running:
        yield running


@contextlib.contextmanager
def start_gateway(
    directory: Path, upstream: RawUpstream, **sections: Any
) -> Iterator[GatewayProcess]:
    sections = {
        "workers": WORKERS,
        "trusted_proxies": ["127.0.0.1/32"],
    } | sections
    with gateway_process(directory, upstream.url, **sections) as running:
        running.create_client()
        yield running
    assert "Traceback" not in running.errors()


def worker_pids(gateway: GatewayProcess) -> list[int]:
    """By number."""
    by_number = {}
    for child in psutil.Process(gateway.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies among them
            for argument in child.cmdline():
                if argument.startswith("--number="):
                    by_number[argument] = child.pid
    return [pid for _, pid in sorted(by_number.items())]


def counters(gateway: GatewayProcess) -> dict[str, float]:
    """Every sample that must never go down."""
    text = httpx.get(f"{gateway.admin_url}/metrics", timeout=scaled()).text
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        if family.type in {"counter", "histogram"}
        for sample in family.samples
    }


def metric(gateway: GatewayProcess, name: str, **labels: str) -> float:
    text = httpx.get(f"{gateway.admin_url}/metrics", timeout=scaled()).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def connections_of(gateway: GatewayProcess, worker: int) -> float:
    return metric(gateway, "gateway_worker_connections", worker=str(worker))


class Connections:
    """Connections that stay open, to all workers, and what they answer to one request each."""

    def __init__(self, gateway: GatewayProcess, token: str) -> None:
        self._head = f"GET /api/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._open = [
            socket.create_connection(("127.0.0.1", gateway.port), timeout=scaled())
            for _ in range(CONNECTIONS)
        ]
        wait_until(lambda: metric(gateway, "gateway_connections") >= CONNECTIONS)
        assert all(connections_of(gateway, number) for number in range(1, WORKERS + 1))

    def statuses(self) -> set[int]:
        for connection in self._open:
            connection.sendall(self._head.encode())
        return {self._read(connection) for connection in self._open}

    def _read(self, connection: socket.socket) -> int:
        response = b""
        while b"\r\n\r\n" not in response:
            piece = connection.recv(65536)
            assert piece, "closed without a response"
            response += piece
        head, _, body = response.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        return int(head.split(b" ")[1])

    def close(self) -> None:
        for connection in self._open:
            connection.close()


@pytest.fixture
def connections(gateway: GatewayProcess) -> Iterator[Connections]:
    opened = Connections(gateway, gateway.get_token())
    yield opened
    opened.close()


def test_every_worker_serves_and_one_page_counts_for_all(
    gateway: GatewayProcess, connections: Connections
) -> None:
    labels = {"route": "api", "code": "200"}
    name = "gateway_request_duration_seconds_count"
    requests = metric(gateway, "gateway_requests_total", **labels)
    observed = metric(gateway, name, route="api")
    assert connections.statuses() == {200}
    assert metric(gateway, "gateway_requests_total", **labels) == requests + CONNECTIONS
    assert metric(gateway, name, route="api") == observed + CONNECTIONS
    assert metric(gateway, "gateway_workers") == WORKERS
    assert metric(gateway, "gateway_store_up") == 1
    assert metric(gateway, "gateway_config_last_reload_successful") == 1
    assert metric(gateway, "gateway_config_hash_info") == 1
    log = (gateway.directory / "access.log").read_text
    wait_until(lambda: log().count('"path":"/api/x"') >= CONNECTIONS)


@slow("under load")
def test_worker_killed_under_load_takes_only_its_requests_in_flight(
    own_gateway: GatewayProcess,
) -> None:
    gateway = own_gateway
    token = gateway.get_token()
    clients = [LoadClient(gateway.port, token) for _ in range(16)]
    for client in clients:
        client.start()
    wait_until(lambda: completed_by(clients) > 500)
    wait_until(lambda: all(connections_of(gateway, number) for number in range(1, WORKERS + 1)))
    victim = worker_pids(gateway)[0]
    on_victim = connections_of(gateway, 1)
    before = counters(gateway)
    os.kill(victim, signal.SIGKILL)
    shown = [before]

    def is_replaced() -> bool:
        shown.append(counters(gateway))
        assert httpx.get(f"{gateway.admin_url}/readyz").status_code == 200
        return metric(gateway, "gateway_workers") == WORKERS and len(shown) >= 20

    wait_until(is_replaced)
    assert victim not in worker_pids(gateway)
    completed = completed_by(clients)
    wait_until(lambda: completed_by(clients) > completed + 500)
    gateway.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join(timeout=scaled())

    losses = Counter(len(client.lost) for client in clients)
    assert losses[0] + losses[1] == len(clients), [client.lost for client in clients]
    assert 0 < losses[1] <= on_victim
    assert not any("connect" in lost for client in clients for lost in client.lost)
    assert sum(client.wrong for client in clients) == 0
    for earlier, later in itertools.pairwise(shown):
        assert not {name for name, value in earlier.items() if later.get(name, -1) < value}
    assert metric_after(shown, "gateway_worker_restarts_total") == 1
    gateway.wait_for_line("worker 1 was killed by signal 9")


def metric_after(shown: list[dict[str, float]], name: str) -> float:
    return max(value for key, value in shown[-1].items() if key.startswith(name))


@slow("under load")
def test_connections_in_the_queue_of_a_dead_worker_are_served(
    gateway: GatewayProcess,
) -> None:
    token = gateway.get_token()
    victim = worker_pids(gateway)[1]
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(victim).status() == psutil.STATUS_STOPPED)
    head = f"GET /api/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    waiting = []
    completed = 0
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=scaled())
        connection.sendall(head)
        waiting.append(connection)
    wait_until(lambda: connections_of(gateway, 1) > 0)
    os.kill(victim, signal.SIGKILL)
    for connection in waiting:
        completed += connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.close()
    assert completed == CONNECTIONS
    wait_until(lambda: metric(gateway, "gateway_workers") == WORKERS)


def test_token_revoked_anywhere_stops_at_every_worker(gateway: GatewayProcess) -> None:
    for trial in range(10):
        client_id = f"client-{trial}"
        gateway.create_client(client_id)
        opened = Connections(gateway, gateway.get_token(client_id))
        assert opened.statuses() == {200}
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        deleted = httpx.delete(f"{gateway.admin_url}/api/v1/clients/{client_id}", headers=headers)
        assert deleted.status_code == 200
        wait_until(lambda opened=opened: opened.statuses() == {401})  # type: ignore[misc]
        opened.close()


def test_client_replaced_through_one_worker_is_forgotten_by_the_others(
    upstream: RawUpstream, tmp_path: Path
) -> None:
    provider = {"registration": {"fail_if_present": False}}
    with start_gateway(tmp_path, upstream, provider=provider) as gateway:
        opened = Connections(gateway, gateway.get_token())
        assert opened.statuses() == {200}
        gateway.create_client(secret="another-secret")
        wait_until(lambda: opened.statuses() == {401})
        opened.close()


def test_limit_on_failed_clients_holds_for_all_workers_together(gateway: GatewayProcess) -> None:
    def guess() -> int:
        response = httpx.post(
            f"{gateway.url}/token",
            data={"grant_type": "client_credentials"},
            auth=("shop", "wrong"),
            headers={"X-Forwarded-For": "192.0.2.7"},
        )
        # What one worker tells goes ahead of what it answers to the second of these.
        counters(gateway)
        counters(gateway)
        return response.status_code

    assert [guess() for _ in range(12)] == [401] * 5 + [429] * 7

    # A worker that comes later knows it, too.
    for pid in worker_pids(gateway):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: pid not in worker_pids(gateway))  # type: ignore[misc]
        wait_until(lambda: metric(gateway, "gateway_workers") == WORKERS)
    assert {guess() for _ in range(4)} == {429}
    assert gateway.get_token()


def test_workers_end_when_their_supervisor_is_killed(own_gateway: GatewayProcess) -> None:
    gateway = own_gateway
    workers = [psutil.Process(pid) for pid in worker_pids(gateway)]
    assert len(workers) == WORKERS
    gateway.process.kill()
    _, alive = psutil.wait_procs(workers, timeout=scaled())
    assert alive == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", gateway.port))
    gateway.wait_for_line("the supervisor is gone; draining", count=WORKERS)


def test_workers_are_forked_and_started_as_programs_where_the_fork_server_is_gone(
    own_gateway: GatewayProcess,
) -> None:
    gateway, supervisor = own_gateway, psutil.Process(own_gateway.process.pid)
    (server,) = supervisor.children()
    assert "gateway.app.forks" in server.cmdline()
    workers = server.children()
    assert {worker.pid for worker in workers} == set(worker_pids(gateway))
    # What a fork copies must not make two workers alike.
    connections = Connections(gateway, gateway.get_token())
    assert connections.statuses() == {200}
    connections.close()
    ids = {httpx.get(f"{gateway.url}/public").headers["x-request-id"] for _ in range(40)}
    assert len(ids) == 40
    server.kill()
    wait_until(lambda: "has ended; workers go on without it" in gateway.errors())
    assert httpx.get(f"{gateway.url}/public").status_code == 200
    # One that dies now is replaced all the same.
    victim = min(worker.pid for worker in workers)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(worker_pids(gateway)) == 1)
    wait_until(lambda: metric(gateway, "gateway_worker_restarts_total") == 1)
    wait_until(lambda: metric(gateway, "gateway_workers") == WORKERS)
    assert httpx.get(f"{gateway.url}/public").status_code == 200
    assert gateway.stop() == 0


def test_signals_are_for_the_supervisor_alone(own_gateway: GatewayProcess) -> None:
    gateway = own_gateway
    connections = Connections(gateway, gateway.get_token())
    workers = worker_pids(gateway)
    for pid in (*workers, gateway.process.pid):
        os.kill(pid, signal.SIGHUP)
    for pid in workers:
        # As systemd does, which signals every process of a service.
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert connections.statuses() == {200}
    connections.close()
    assert worker_pids(gateway) == workers
    assert gateway.stop(signal.SIGINT) == 0
    assert not any(psutil.pid_exists(pid) for pid in workers)


def test_second_signal_ends_the_workers_too(upstream: RawUpstream, tmp_path: Path) -> None:
    shutdown = {"delay": "60s", "grace": "60s"}
    with start_gateway(tmp_path, upstream, shutdown=shutdown) as gateway:
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{gateway.admin_url}/readyz").status_code == 503)
        assert gateway.stop() == 0


def run_to_the_end(directory: Path, **sections: Any) -> tuple[int, str]:
    config = directory / "gateway.yaml"
    config.write_text(make_config(directory, workers=WORKERS, **sections))
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "run", "-c", str(config)],
        capture_output=True, text=True, timeout=scaled(60), check=False,
    )  # fmt: skip
    return ended.returncode, ended.stderr


def test_store_that_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    status, errors = run_to_the_end(tmp_path, store=f"sqlite:///{tmp_path}/missing/a.db")
    assert status == 1
    (line,) = errors.splitlines()
    assert line.endswith(f"gateway.yaml:8: store: there is no directory {tmp_path}/missing"), line


def test_what_keeps_the_workers_from_starting_is_one_clear_line(tmp_path: Path) -> None:
    tls = {"cert": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.pem")}
    status, errors = run_to_the_end(tmp_path, listen={"tls": tls})
    assert status == 1
    lines = errors.splitlines()
    assert [line.partition("listen.tls.")[2].partition(":")[0] for line in lines] == ["cert", "key"]
    assert all("none.pem" in line and "No such file or directory" in line for line in lines)


def test_port_of_another_gateway_is_refused_not_shared(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    status, errors = run_to_the_end(other, listen={"port": gateway.port})
    assert status == 1
    assert "address already in use" in errors


def test_lines_of_all_workers_stay_whole_on_a_full_pipe(
    upstream: RawUpstream, tmp_path: Path
) -> None:
    gateway = GatewayProcess(tmp_path, upstream.url, workers=WORKERS, access_log={"path": "-"})
    reader, writer = os.pipe()
    gateway.start(stdout=writer)
    os.close(writer)
    path = "/public/" + "x" * 5000  # longer than what a pipe takes in one piece
    sent = 0
    while sent < 100:
        with httpx.Client() as client:  # a connection of its own, to any worker
            for _ in range(5):
                assert client.get(gateway.url + path).status_code == 200
                sent += 1
    gateway.process.send_signal(signal.SIGTERM)
    log = b""
    while piece := os.read(reader, 1000):  # a slow reader: the pipe is full all the time
        log += piece
    os.close(reader)
    lines = log.decode().splitlines()
    assert gateway.stop() == 0
    assert Counter(line.startswith('{"time":"') and line.endswith("}") for line in lines) == {
        True: sent
    }


def test_registration_token_is_not_on_the_command_line(gateway: GatewayProcess) -> None:
    for pid in worker_pids(gateway):
        process = psutil.Process(pid)
        shown = " ".join(process.cmdline()) + str(process.environ())
        assert REGISTRATION_TOKEN not in shown
        assert ADMIN_TOKEN not in shown


def test_every_worker_decides_for_other_proxies(upstream: RawUpstream, tmp_path: Path) -> None:
    port = free_port()
    authz = {"port": port, "dialect": "nginx", "trusted_proxies": ["127.0.0.1/32"]}
    with start_gateway(tmp_path, upstream, authz=authz) as gateway:
        token = gateway.get_token()
        requested = {"X-Original-Method": "GET", "X-Original-URI": "/api/x"}
        bearer = {"Authorization": f"Bearer {token}"}

        def fetch(**headers: str) -> int:  # on a connection of its own, to any worker
            return httpx.get(
                f"http://127.0.0.1:{port}/authz", headers=requested | headers
            ).status_code

        assert {fetch(**bearer) for _ in range(20)} == {200}
        assert {fetch() for _ in range(20)} == {401}
        line = 'gateway_requests_total{code="200",method="GET",route="api",source="authz"} 20.0'
        wait_until(lambda: line in httpx.get(f"{gateway.admin_url}/metrics").text)
        for pid in worker_pids(gateway)[1:]:
            psutil.Process(pid).kill()
        assert {fetch(**bearer) for _ in range(20)} == {200}, "another one takes its connections"


def test_log_level_and_spans_are_those_of_all_workers(
    upstream: RawUpstream, tmp_path: Path
) -> None:
    spans: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            spans.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    tracing = {"otlp_endpoint": f"http://127.0.0.1:{collector.server_port}"}
    with start_gateway(tmp_path, upstream, tracing=tracing) as gateway:

        def said(number: int) -> bool:
            """Whether each worker has said something since the level is DEBUG."""
            text = gateway.errors()
            return all(f"[worker {n}]: the log level is" in text for n in range(1, number + 1))

        url = f"{gateway.admin_url}/api/v1/log-level"
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        assert httpx.get(url, headers=headers).json() == {"level": "INFO"}
        gateway.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: httpx.get(url, headers=headers).json() == {"level": "DEBUG"})
        wait_until(lambda: said(WORKERS))
        assert httpx.get(f"{gateway.url}/api/x").status_code == 401
        wait_until(lambda: "DEBUG gateway.proxy.pipeline" in gateway.errors())
        httpx.put(url, headers=headers, json={"level": "INFO"})
        for _ in range(20):
            assert httpx.get(f"{gateway.url}/public/x").status_code == 200
        wait_until(lambda: sum(body.count(b"GET /public") for body in spans) == 20)
        accept = {"Accept": "application/openmetrics-text"}
        page = httpx.get(f"{gateway.admin_url}/metrics", headers=accept).text
        assert 'trace_id="' in page
        assert page.endswith("# EOF\n")
    collector.shutdown()
    collector.server_close()
