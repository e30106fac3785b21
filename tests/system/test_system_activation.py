"""A gateway that gets its sockets from systemd, and one on a Unix socket, as processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest
from support.deadlines import scaled, wait_until
from support.processes.gateway import GatewayProcess, gateway_process
from support.servers.raw_upstream import RawUpstream, thread_upstream
from support.tiers import slow

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
LAUNCHER = """\
import json, os, sys

# Does what systemd does: the sockets become 3, 4, ... of the process that is then the gateway.
descriptors, names = json.loads(sys.argv[1])
for at, descriptor in enumerate(descriptors):
    os.dup2(descriptor, 100 + at)
os.closerange(3, 100)
for at in range(len(descriptors)):
    os.dup2(100 + at, 3 + at, inheritable=True)
os.closerange(100, 200)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(descriptors))
os.environ["LISTEN_FDNAMES"] = ":".join(names)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
TAKE = """\
import os
from gateway.downstream.systemd import take_activated

take_activated(os.environ)
"""
LAUNCH = (sys.executable, "-c", LAUNCHER)


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with thread_upstream() as running:
        yield running


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory for sockets, whose paths have to be short."""
    with TemporaryDirectory() as directory:
        yield Path(directory)


def listening(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
    opened = socket.socket(family)
    opened.bind(address)
    opened.listen()
    return opened


def passed(sockets: dict[str, socket.socket]) -> tuple[list[int], str]:
    """The descriptors of sockets, and these with their names for the launcher."""
    descriptors = [opened.fileno() for opened in sockets.values()]
    return descriptors, json.dumps([descriptors, list(sockets)])


@contextmanager
def launched(gateway: GatewayProcess, sockets: dict[str, socket.socket]) -> Iterator[None]:
    """Run a gateway that is given these sockets, by their names."""
    descriptors, given = passed(sockets)
    try:
        gateway.start(command=(*LAUNCH, given, "-m", "gateway"), pass_fds=descriptors)
        yield
    finally:
        gateway.stop()


def port_of(opened: socket.socket) -> int:
    port: int = opened.getsockname()[1]
    return port


def get_local(path: Path) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        return client.get("http://h/public")


REQUEST = b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_sockets_of_systemd_are_used_in_place_of_own_ones(
    tmp_path: Path, short: Path, upstream: RawUpstream, workers: int
) -> None:
    path = short / "s.sock"
    gateway = GatewayProcess(tmp_path, upstream.url, workers=workers)
    own_port, own_admin = gateway.port, gateway.admin_port
    with (
        closing(listening()) as data,
        closing(listening(socket.AF_UNIX, str(path))) as local,
        closing(listening()) as admin,
    ):
        gateway.url = f"http://127.0.0.1:{port_of(data)}"
        gateway.admin_url = f"http://127.0.0.1:{port_of(admin)}"
        with launched(gateway, {"data": data, "gateway.socket": local, "admin": admin}):
            for _ in range(8):
                assert httpx.get(f"{gateway.url}/public").text == "ok"
                assert get_local(path).text == "ok"
            for port in (own_port, own_admin):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))
            for child in psutil.Process(gateway.process.pid).children():
                if "gateway.app.forks" in child.cmdline():
                    continue  # /proc shows of a fork what its parent began with
                assert not [name for name in child.environ() if name.startswith("LISTEN_")]
            assert gateway.stop() == 0, gateway.errors()
        assert "Traceback" not in gateway.errors()
        assert path.is_socket(), "it is systemd's"
        # Who connects while the service restarts waits, and is answered by the next process.
        with socket.create_connection(("127.0.0.1", port_of(data)), timeout=scaled()) as waiting:
            waiting.sendall(REQUEST)
            with launched(gateway, {"": data, "unknown": local, "admin": admin}):
                assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
                assert get_local(path).text == "ok"
                assert gateway.stop() == 0, gateway.errors()


def test_sockets_that_are_for_another_process_are_left_alone(
    tmp_path: Path, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with gateway_process(tmp_path, upstream.url) as gateway:
        assert httpx.get(f"{gateway.url}/public").text == "ok"


def refusal(name: str, opened: socket.socket) -> str:
    """Why a process does not take a socket, which need not be a whole gateway."""
    with closing(opened):
        descriptors, given = passed({name: opened})
        command = (*LAUNCH, given, "-c", TAKE)
        done = subprocess.run(command, pass_fds=descriptors, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    return done.stderr


def test_socket_that_can_not_be_used_ends_the_start_and_says_why(
    tmp_path: Path, short: Path
) -> None:
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9")
    with closing(listening()) as opened:
        with pytest.raises(AssertionError), launched(gateway, {"metrics": opened}):
            pass
        assert gateway.stop() == 1
    assert "a socket named 'metrics'" in gateway.errors()
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    for useless in (datagrams, socket.socket()):
        reason = "passed descriptor 3 (data), which is no listening stream socket"
        assert reason in refusal("data", useless)
    local = listening(socket.AF_UNIX, str(short / "a.sock"))
    assert "the admin listener is TCP" in refusal("admin", local)


def test_real_systemd_socket_activate_starts_the_gateway(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("needs systemd-socket-activate: apt-get install systemd")
    gateway = GatewayProcess(tmp_path, upstream.url)
    python = (sys.executable, "-m", "gateway")
    data, admin = f"127.0.0.1:{gateway.port}", f"127.0.0.1:{gateway.admin_port}"
    command = (activate, "-l", data, "-l", admin, "--fdname=data:admin", *python)
    try:
        gateway.start(command=command)
        assert httpx.get(f"{gateway.url}/public").text == "ok"
    finally:
        assert gateway.stop() == 0
    gateway.wait_for_line(f"listens on http://{data} (systemd)")


def workers_of(gateway: GatewayProcess) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(gateway.process.pid).children(recursive=True)
        if "gateway.app.worker" in child.cmdline()
    ]


@slow("under load")
def test_workers_share_the_unix_socket_and_a_dead_one_is_no_loss(
    tmp_path: Path, short: Path, upstream: RawUpstream
) -> None:
    path = short / "g.sock"
    with gateway_process(
        tmp_path, upstream.url, workers=2, listen={"unix": {"path": str(path)}},
    ) as gateway:  # fmt: skip
        workers = workers_of(gateway)
        workers[0].kill()
        for _ in range(50):
            assert get_local(path).text == "ok"
        wait_until(lambda: len(workers_of(gateway)) == 2)
        assert get_local(path).text == "ok"
        assert gateway.stop() == 0
        assert not path.exists()
        assert "Traceback" not in gateway.errors()
        # A supervisor that is killed leaves the file behind, and the next one replaces it.
        gateway.start()
        orphans = psutil.Process(gateway.process.pid).children(recursive=True)
        gateway.process.kill()
        gateway.stop()
        psutil.wait_procs(orphans, timeout=scaled())
        assert path.is_socket()
        gateway.start()
        assert get_local(path).text == "ok"


UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    for unit in UNITS:
        text = unit.read_text().replace("/opt/bearer-gateway/bin/gateway", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / unit.name) for unit in UNITS]
    verified = subprocess.run(
        [analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    complaints = [line for line in verified.stderr.splitlines() if str(tmp_path) in line]
    assert not complaints
    service = str(tmp_path / "gateway.service")
    rated = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", service],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout + rated.stderr
