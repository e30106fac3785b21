"""Servers are started on their cores, awaited, and stopped by their id."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from bench import processes
from bench.cores import available_cpus
from bench.processes import BenchError, Launch, Server, get, run

RESPONSES = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0)))).encode()
        self.send_response(200 if self.path == "/good" else 503)
        self.send_header("Content-Length", str(len(cpus)))
        self.end_headers()
        self.wfile.write(cpus)
if len(sys.argv) > 2:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def launch(port: int, *arguments: str, path: str = "/good") -> Launch:
    argv = (sys.executable, "-c", RESPONSES, str(port), *arguments)
    return Launch(argv, ready_port=port, ready_path=path, ready_status=200)


def test_server_is_ready_on_its_core_and_gone_when_stopped(port: int, tmp_path: Path) -> None:
    core = available_cpus()[-1]
    with Server("answers", launch(port), (core,), tmp_path) as server:
        assert 0 < server.wait_until_ready() < processes.READY_TIMEOUT_S
        assert get(port, "/good") == (200, str(core).encode())
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    with pytest.raises(OSError, match="refused"):
        get(port, "/good")


def test_server_that_ends_is_reported_with_its_last_words(port: int, tmp_path: Path) -> None:
    ending = Launch((sys.executable, "-c", "raise SystemExit('no such file')"), ready_port=port)
    with (
        Server("it", ending, available_cpus(), tmp_path) as server,
        pytest.raises(BenchError, match="it did not start: no such file"),
    ):
        server.wait_until_ready()


def test_server_that_never_becomes_ready_is_given_up(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "READY_TIMEOUT_S", 0.5)
    with (
        Server("it", launch(port, path="/bad"), available_cpus(), tmp_path) as server,
        pytest.raises(BenchError, match="not ready within"),
    ):
        server.wait_until_ready()


def test_server_that_ignores_the_signal_is_killed(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.2)
    server = Server("it", launch(port, "deaf"), available_cpus(), tmp_path)
    server.wait_until_ready()
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_command_that_fails_or_hangs_is_reported() -> None:
    with pytest.raises(BenchError, match="sh failed with 3: because"):
        run(("sh", "-c", "echo because >&2; exit 3"), timeout_s=10)
    with pytest.raises(BenchError, match="sleep took longer"):
        run(("sleep", "30"), timeout_s=0.1)
    assert run(("cat",), timeout_s=10, given="in") == "in"
    assert run(("sh", "-c", "echo out; exit 3"), timeout_s=10, check=False) == "out\n"
