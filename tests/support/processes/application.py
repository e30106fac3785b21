"""An application behind the gateway, as a process: `python -m support.processes.application PORT`.

It answers `ok`, requests with `?held` on SIGUSR1 only, and finishes what it has begun when told to
stop.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from support.deadlines import scaled

TESTS = Path(__file__).parents[2]


class Application:
    """That process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._command = [sys.executable, "-m", "support.processes.application", str(port)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and do not wait."""
        self._process = subprocess.Popen(self._command, cwd=TESTS)

    def is_listening(self) -> bool:
        """Whether it takes new connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def let_go(self) -> None:
        """Answer the requests that are held, and those that follow, at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """Tell it to stop, and wait until it has: for ever while a request is held."""
        if (process := self._process) is not None:
            process.terminate()
            process.wait(timeout=scaled())
            self._process = None


_LET_GO = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, as soon as that is allowed."""
        is_held = urlsplit(self.path).query == "held"
        if is_held:
            _LET_GO.wait()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        if is_held:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing."""


class _Server(ThreadingHTTPServer):
    # Wait for the threads, in which requests are.
    daemon_threads = False
    # But not for connections that are only kept.
    block_on_close = True


def _main() -> None:
    server = _Server(("127.0.0.1", int(sys.argv[1])), _Handler)
    _Handler.timeout = 1

    def stop(number: int, frame: object) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, lambda number, frame: _LET_GO.set())
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    _main()
