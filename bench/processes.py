"""Processes of the bench: pinned to cores, awaited, and stopped by their own id."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.cores import Cpus

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin"
"""Where programs are looked for: proxies are often where only root looks."""


class BenchError(Exception):
    """Something that can't be measured, in a sentence for the one who wanted it."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started, and where it shows that it is ready."""

    argv: tuple[str, ...]
    ready_port: int
    ready_path: str = "/"
    ready_status: int | None = None
    """None is any status: something answers."""
    environment: Mapping[str, str] = field(default_factory=dict)
    is_tls: bool = False
    """Whether the ready port speaks TLS."""


def pinned(argv: tuple[str, ...], cpus: Cpus) -> list[str]:
    """The command on these cores only."""
    return ["taskset", "--cpu-list", ",".join(map(str, cpus)), *argv]


class Server:
    """A running server. Also a context manager that stops it."""

    def __init__(self, name: str, launch: Launch, cpus: Cpus, directory: Path) -> None:
        self.name = name
        self._launch = launch
        self._output = directory / "output.log"
        self.started_at = time.monotonic()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                pinned(launch.argv, cpus),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PATH": SEARCH_PATH, **launch.environment},
                # Ctrl-C is for the bench, which then stops what it started.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the server itself: taskset becomes what it starts."""
        return self._process.pid

    def wait_until_ready(self, *, poll_s: float = 0.02) -> float:
        """Seconds from the start of the process to its first good response.

        Raises `BenchError` where it ends, or takes longer than `READY_TIMEOUT_S`.
        """
        while not self._is_ready():
            waited_s = time.monotonic() - self.started_at
            if not self.is_alive:
                raise BenchError(f"{self.name} did not start: {self.last_words()}")
            if waited_s > READY_TIMEOUT_S:
                raise BenchError(f"{self.name} was not ready within {READY_TIMEOUT_S:g} s")
            time.sleep(poll_s)
        return time.monotonic() - self.started_at

    def _is_ready(self) -> bool:
        launch = self._launch
        try:
            status, _ = get(launch.ready_port, launch.ready_path, is_tls=launch.is_tls)
        except (OSError, http.client.HTTPException):
            return False
        return launch.ready_status in {None, status}

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of what it wrote."""
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it wrote nothing"

    def stop(self) -> None:
        """Ask it to end, and make it end if it does not."""
        try:
            if self.is_alive:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def get(
    port: int,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 5.0,
    is_tls: bool = False,
) -> tuple[int, bytes]:
    """Status and body of a GET to a local port. Raises `OSError` and `HTTPException`."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout_s, context=_unverified())
        if is_tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    )
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _unverified() -> ssl.SSLContext:
    """For the bench's own certificate, on loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def run(argv: tuple[str, ...], *, timeout_s: float, check: bool = True, given: str = "") -> str:
    """What a command writes to standard output, `given` on its standard input.

    Raises `BenchError` where it fails or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            input=given,
            env={**os.environ, "PATH": SEARCH_PATH},
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{Path(argv[0]).name} took longer than {timeout_s:g} s") from None
    if check and done.returncode:
        message = (done.stderr or done.stdout).strip()
        raise BenchError(f"{Path(argv[0]).name} failed with {done.returncode}: {message}")
    return done.stdout
