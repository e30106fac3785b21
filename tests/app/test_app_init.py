"""The gateway as the first process of a PID namespace, as in a container."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.deadlines import scaled, wait_until
from support.processes.gateway import GatewayProcess

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")


@pytest.fixture(params=[1, 2], ids=["alone", "with workers"])
def contained(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway that is PID 1 of its namespace; its process is `unshare`, around it."""
    allowed = shutil.which("nsenter") and shutil.which("unshare")
    if not allowed or subprocess.run([*UNSHARE, "true"], check=False).returncode:
        pytest.skip("needs the right to make a PID namespace")
    sections = {"workers": request.param, "shutdown": {"delay": 0, "grace": "2s"}}
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9", **sections)
    gateway.start(command=(*UNSHARE, sys.executable, "-m", "gateway"))
    yield gateway
    gateway.process.kill()
    gateway.process.wait()


def _first(gateway: GatewayProcess) -> psutil.Process:
    (first,) = psutil.Process(gateway.process.pid).children()
    return first


def test_orphans_of_commands_in_the_container_are_reaped(contained: GatewayProcess) -> None:
    first = _first(contained)
    before = {process.pid for process in first.children(recursive=True)}
    # The shell ends before what it began, which is then the first process's.
    orphans = "for n in 1 2 3; do (sleep 0.2 & echo $!) ; done"
    subprocess.run(
        ["nsenter", "--target", str(first.pid), "--pid", "sh", "-c", orphans],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: {one.pid for one in first.children(recursive=True)} <= before)
    assert first.is_running()


def test_signal_to_the_first_process_ends_the_gateway_in_order(contained: GatewayProcess) -> None:
    first = _first(contained)
    first.send_signal(signal.SIGHUP)  # reloads, and does not end it
    first.send_signal(signal.SIGTERM)
    assert contained.process.wait(timeout=scaled()) == 0
    assert "stopped" in (contained.directory / "stderr.log").read_text()


def test_gateway_that_is_killed_ends_the_container_with_its_status(
    contained: GatewayProcess,
) -> None:
    (gateway,) = _first(contained).children()
    gateway.kill()
    assert contained.process.wait(timeout=scaled()) == 128 + signal.SIGKILL
