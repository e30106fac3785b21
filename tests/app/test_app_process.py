"""What a process meets before its loop runs and after it: signals, descriptors, reads that hang."""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.deadlines import scaled, wait_until
from support.processes.gateway import GatewayProcess, gateway_process
from support.running_gateway import ADMIN_TOKEN

from gateway.app.run import authority
from gateway.downstream import sockets

QUICK = {"delay": 0, "grace": "1s"}


def start(gateway: GatewayProcess, *, first: str = ":") -> subprocess.Popen[bytes]:
    """Start after a command of the shell, with standard error in a file, and don't wait for it."""
    with (gateway.directory / "errors").open("wb") as errors:
        return subprocess.Popen(
            ["sh", "-c", f'{first}; exec "$0" -m gateway run -c "$1"', sys.executable,
             str(gateway.config)],
            stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip


def is_ready(gateway: GatewayProcess) -> bool:
    try:
        return httpx.get(f"{gateway.admin_url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def catches(process: subprocess.Popen[bytes], number: int, field: str) -> bool:
    """Whether a process has a handler for a signal (`SigCgt`), or ignores it (`SigIgn`)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith(field))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_signals_while_it_starts_are_kept_or_ignored(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9", shutdown=QUICK)
    process = start(gateway)
    wait_until(lambda: catches(process, signal.SIGTERM, "SigCgt"))
    # Long before the modules of a gateway are imported, and its loop runs.
    assert "aiohttp" not in Path(f"/proc/{process.pid}/maps").read_text()
    wait_until(lambda: catches(process, signal.SIGHUP, "SigIgn"))
    wait_until(lambda: catches(process, signal.SIGUSR1, "SigIgn"))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    status = process.wait(timeout=scaled())
    errors = (tmp_path / "errors").read_text()
    assert status == 0, errors
    assert "stopped before it had started" in errors


@pytest.mark.parametrize(("closed", "workers"), [((1,), 1), ((0, 1, 2), 1), ((0, 1, 2), 2)])
def test_closed_standard_descriptors_are_no_trouble(
    tmp_path: Path, closed: tuple[int, ...], workers: int
) -> None:
    gateway = GatewayProcess(
        tmp_path, "http://127.0.0.1:9", shutdown=QUICK, workers=workers, access_log={"path": "-"}
    )
    close = "".join(f" {number}>&-" for number in closed)
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$0" -m gateway run -c "$1"{close}', sys.executable,
         str(gateway.config)],
    )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None or is_ready(gateway))
        assert process.poll() is None
        assert httpx.get(f"{gateway.url}/public").status_code == 502
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=scaled()) == 0
    finally:
        process.kill()
        process.wait()


def test_check_with_closed_standard_output_says_nothing(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9")
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m gateway check -c "$1" >&-', sys.executable, str(gateway.config)],
        stderr=subprocess.PIPE, check=False, timeout=scaled(),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_secret_that_is_a_pipe_holds_up_neither_reload_nor_end(tmp_path: Path) -> None:
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    gateway = GatewayProcess(
        tmp_path, "http://127.0.0.1:9", shutdown=QUICK, reload={"interval": "100ms"},
        provider={"registration": {"mode": "token", "token": f"${{file:{pipe}}}"}},
    )  # fmt: skip
    process = start(gateway)
    try:
        pipe.write_text("registration-token")
        wait_until(lambda: is_ready(gateway))
        response = httpx.post(
            f"{gateway.admin_url}/api/v1/reload",
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=scaled(),
        )  # fmt: skip
        assert "is no regular file" in response.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=scaled()) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "errors").read_text().count("is no regular file") == 2, "at start, and asked"


def test_thread_that_never_ends_does_not_keep_the_process() -> None:
    script = (
        "import asyncio, os, sys, threading\n"
        "from gateway.app.process import leave, let_threads_go\n"
        "async def main():\n"
        "    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)\n"
        "    return 7\n"
        "status = asyncio.run(let_threads_go(main()))\n"
        "print('stopped')\n"
        "sys.exit(leave(status))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, check=False, timeout=scaled()
    )
    assert (done.returncode, done.stdout) == (7, b"stopped\n")


def test_few_descriptors_are_kept_for_probes_and_upstreams(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9", shutdown=QUICK)
    process = start(gateway, first="ulimit -n 256")
    clients = []
    try:
        wait_until(lambda: is_ready(gateway))
        for _ in range(250):
            clients.append(socket.create_connection(("127.0.0.1", gateway.port), timeout=scaled()))
        assert httpx.get(f"{gateway.admin_url}/healthz", timeout=scaled()).status_code == 200
        wait_until(
            lambda: (
                'connections_refused_total{reason="max_connections"} 154.0'
                in httpx.get(f"{gateway.admin_url}/metrics", timeout=scaled()).text
            )
        )
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=scaled())
    finally:
        for client in clients:
            client.close()
        process.kill()
        process.wait()
    assert "256 open files (ulimit -n) allow 96" in (tmp_path / "errors").read_text()


def test_address_of_a_name_that_the_host_lacks_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 192.0.2.1 is for documentation (RFC 5737): no host has it.
    both: list[Any] = [
        (socket.AF_INET, ("192.0.2.1", 0)), (socket.AF_INET, ("127.0.0.1", 0)),
    ]  # fmt: skip
    monkeypatch.setattr(sockets, "_addresses", lambda host, port: both)
    (opened,) = sockets.open_sockets("both.example", 0)
    assert [one.getsockname()[0] for one in opened] == ["127.0.0.1"]
    sockets.close_sockets([opened])
    both.pop()
    with pytest.raises(OSError, match="cannot assign") as raised:
        sockets.open_sockets("both.example", 0)
    assert raised.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "no such host", "[::1]"])
def test_host_that_can_not_be_listened_on_is_named(host: str) -> None:
    with pytest.raises(OSError, match="can't listen on") as raised:
        sockets.open_sockets(host, 0)
    assert repr(host) in str(raised.value)


def test_address_is_announced_as_in_a_url() -> None:
    assert [authority(host, 80) for host in ("::", "::1", "0.0.0.0", "a.example")] == [
        "[::]:80", "[::1]:80", "0.0.0.0:80", "a.example:80",
    ]  # fmt: skip


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory")
def test_memory_of_a_hash_is_returned_after_it(tmp_path: Path) -> None:
    with gateway_process(tmp_path, "http://127.0.0.1:9", shutdown=QUICK) as gateway:
        for _ in range(2):
            wrong = {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"}
            assert httpx.post(f"{gateway.url}/token", data=wrong).status_code == 401
        status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    kib = {line.split()[0]: int(line.split()[1]) for line in status.splitlines() if " kB" in line}
    # A hash takes 19 MiB.
    assert kib["VmHWM:"] - kib["VmRSS:"] > 10 * 1024
