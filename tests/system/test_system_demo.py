"""`make run`: what it prints works as printed, and it never takes another's server for its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deadlines import scaled
from support.programs import needs
from support.tiers import slow

from examples import demo
from examples.ports import free_port

pytestmark = [slow("tutorials"), pytest.mark.system]

ROOT = Path(__file__).parents[2]
needs_curl = needs("curl")


class Demo:
    """A running demo on ports of its own."""

    def __init__(self, directory: Path, **taken: int) -> None:
        self.ports = {name: free_port() for name in ("PORT", "ADMIN_PORT", "UPSTREAM_PORT")}
        self.ports |= taken
        environment = {
            **os.environ,
            **{name: str(port) for name, port in self.ports.items()},
            "PYTHONPATH": str(ROOT),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.demo"],
            cwd=directory, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def read_guide(self) -> str:
        """What it prints until it is ready."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        return "".join(lines)

    def end(self, number: int) -> tuple[int, str]:
        """Signal it; the exit status, and what it printed besides. All that it started has ended,
        too, once its output has."""
        if number == signal.SIGINT:  # a terminal sends it to all of them
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=scaled(60))
        return self.process.returncode, rest


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Demo]:
    started = Demo(tmp_path)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.process.pid, signal.SIGKILL)
        started.process.communicate()


def run_in_shell(*lines: str) -> str:
    """What the lines print, typed into one shell."""
    return subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
    ).stdout


@needs_curl
def test_curl_lines_that_the_demo_prints_work_as_printed(running: Demo, tmp_path: Path) -> None:
    guide = running.read_guide()
    create, token, call = re.findall(r"^(?:curl|TOKEN=).*$", guide, re.MULTILINE)
    shown = run_in_shell(create, "echo", token, call)
    assert "HTTP/1.1 201 Created" in shown
    assert '"message":"Client created successfully."' in shown
    response = json.loads(shown[shown.rindex("\n\n") :])
    assert response["headers"]["X-Client-Id"] == "shop"
    again = run_in_shell(create)
    assert "HTTP/1.1 201 Created" in again, "a second visitor begins with line 1, too"

    status, rest = running.end(signal.SIGINT)
    assert status == 0, guide + rest
    assert "Traceback" not in rest
    # What was asked for is in a file that the guide names, and not between its lines.
    assert "/api/orders" not in rest
    (log,) = re.findall(r"^Access log: (.*)$", guide, re.MULTILINE)
    assert Path(log).parent == tmp_path
    assert "/api/orders" in Path(log).read_text()


def test_demo_ends_by_sigterm_with_what_it_started(running: Demo) -> None:
    assert "Ctrl-C" in running.read_guide()
    assert running.end(signal.SIGTERM)[0] == 0


@needs("ps", package="procps")
def test_demo_ends_when_one_of_its_processes_does(running: Demo) -> None:
    assert "Ctrl-C" in running.read_guide()
    children = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(running.process.pid)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (gateway,) = (line.split()[0] for line in children.splitlines() if "gateway run" in line)
    os.kill(int(gateway), signal.SIGKILL)
    running.process.communicate(timeout=scaled(60))
    assert running.process.returncode == 1


@pytest.mark.parametrize("name", ["PORT", "ADMIN_PORT", "UPSTREAM_PORT"])
def test_port_that_is_in_use_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        demo = Demo(tmp_path, **{name: port})
        output, _ = demo.process.communicate(timeout=scaled(60))
    assert demo.process.returncode == 1
    (line,) = output.splitlines()
    assert line.startswith(f"Port {port} is in use: ")
    assert f"make run {name}=" in line


def test_demo_that_can_not_start_says_so_and_is_never_ready(tmp_path: Path) -> None:
    port = free_port()
    demo = Demo(tmp_path, PORT=port, ADMIN_PORT=port)
    output, _ = demo.process.communicate(timeout=scaled(60))
    assert demo.process.returncode == 1
    assert "is the port of `listen` too" in output
    assert "The demo did not start." in output
    assert "ready" not in output
    assert "Traceback" not in output


def test_ports_of_the_demo_are_those_of_its_configuration() -> None:
    text = (ROOT / "config" / "demo.yaml").read_text()
    for port in demo.PORTS.values():
        assert re.search(rf"\b{port}\b", text)
