"""`make run`: the gateway of `config/demo.yaml` and a small upstream, each a real process.

PORT, ADMIN_PORT and UPSTREAM_PORT choose other ports than 8080, 9090 and 9001.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "demo.yaml"
PORTS = {"PORT": 8080, "ADMIN_PORT": 9090, "UPSTREAM_PORT": 9001}
START_TIMEOUT_S = 60.0
LISTENS = "listens on http"
"""What both processes write to standard error once their sockets are bound."""

GUIDE = """
The gateway is ready. In another terminal:

1. Register a client. Its secret is shown only in this response.

curl -i -X POST http://127.0.0.1:{PORT}/createClient -H 'Authorization: Bearer {token}' \
-H 'client_id: shop' -H 'client_secret: shop-secret' -H 'client_name: The shop'

2. Get a token. It lives one hour.

TOKEN=$(curl -s http://127.0.0.1:{PORT}/token -u shop:shop-secret \
-d grant_type=client_credentials | tee /dev/stderr | cut -d '"' -f 4)

3. Call the protected upstream with it, and then without it.

curl -i http://127.0.0.1:{PORT}/api/orders -H "Authorization: Bearer $TOKEN"

Console:    {gateway} admin create alice -c {config}, then http://127.0.0.1:{ADMIN_PORT}/console
Operation:  http://127.0.0.1:{ADMIN_PORT}/ (metrics, health, API)
Access log: {log}

Ctrl-C stops everything.
"""


def main() -> int:
    """Run the demo until it is stopped; returns the exit status."""
    ports = {name: int(os.environ.get(name) or port) for name, port in PORTS.items()}
    for name, port in ports.items():
        if problem := _problem_with(port):
            advice = "stop what listens there, or choose another port"
            print(f"Port {port} {problem}: {advice}: make run {name}={port + 1000}")
            return 1
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory() as directory:
        return _run(_configuration(ports, Path(directory)), ports)


def _configuration(ports: Mapping[str, int], directory: Path) -> Path:
    """The demo's configuration, or a copy of it with other ports, whose files are where it runs."""
    text = CONFIG.read_text(encoding="utf-8")
    for name, port in ports.items():
        text = re.sub(rf"\b{PORTS[name]}\b", str(port), text)
    if text == CONFIG.read_text(encoding="utf-8") and Path.cwd() == ROOT:
        return CONFIG
    text = text.replace("../", f"{Path.cwd()}/")
    copy = directory / CONFIG.name
    copy.write_text(text, encoding="utf-8")
    return copy


def _run(config: Path, ports: Mapping[str, int]) -> int:
    processes: list[_Process] = []
    ended = threading.Event()
    try:
        print("Starting the gateway and its upstream ...", flush=True)
        for command in (["examples.upstream"], ["gateway", "run", "-c", str(config)]):
            processes.append(_Process(command, ports, ended))
        if not all(process.wait_until_it_listens() for process in processes):
            print("The demo did not start.")
            return 1
        print(_guide(ports), flush=True)
        ended.wait()
        # By itself, or by a Ctrl-C that has reached it before us.
        return int(any(process.has_failed() for process in processes))
    except KeyboardInterrupt:
        return 0
    finally:
        # A terminal's second Ctrl-C reaches the children, who then end without draining.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(processes):
            process.stop()


def _problem_with(port: int) -> str:
    """Say why nothing can listen on a port; empty if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            return "is in use" if is_taken else f"can't be used ({error.strerror})"
    return ""


def _guide(ports: Mapping[str, int]) -> str:
    command = Path(sys.executable).with_name("gateway")
    return GUIDE.format(
        **ports,
        token=os.environ.get("REGISTRATION_TOKEN") or "demo-registration-token",
        gateway=_from_here(command) if command.exists() else f"{sys.executable} -m gateway",
        config=_from_here(CONFIG),
        log=Path("gateway-demo.log").resolve(),
    )


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _interrupt(number: int, frame: object) -> None:
    """End as by Ctrl-C. Children can't be waited for here: the wait that this interrupts holds
    their lock."""
    raise KeyboardInterrupt


class _Process:
    """A child process whose log lines are passed on, up to its end."""

    def __init__(
        self, command: Sequence[str], ports: Mapping[str, int], ended: threading.Event
    ) -> None:
        path = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        own = {"UPSTREAM_PORT": str(ports["UPSTREAM_PORT"])}
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", *command],
            env={**os.environ, **own, "PYTHONPATH": os.pathsep.join(path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._ended = ended
        self._is_settled = threading.Event()
        self._listens = False
        self._has_ended = False
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def _follow(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            if LISTENS in line:
                self._listens = True
                self._is_settled.set()
        self._has_ended = True
        self._is_settled.set()
        self._ended.set()

    def wait_until_it_listens(self) -> bool:
        """Wait until it listens, which it says itself; False if it ended, or took too long."""
        self._is_settled.wait(START_TIMEOUT_S)
        return self._listens

    def has_failed(self) -> bool:
        """Whether it has ended, and not on request."""
        return self._has_ended and self._process.wait() != 0

    def stop(self) -> None:
        """Terminate it, and wait for its end."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()


if __name__ == "__main__":
    sys.exit(main())
