"""An application behind the gateway, as a process: `python application.py PORT`.

It answers `ok`, after `?seconds=S` if asked, and finishes what it has begun when told to stop.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Application:
    """That process."""

    def __init__(self, port: int) -> None:
        self._command = [sys.executable, __file__, str(port)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and do not wait."""
        self._process = subprocess.Popen(self._command)

    def stop(self) -> None:
        """Tell it to stop, and wait until it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)
            self._process = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, in the time that the query says."""
        query = parse_qs(urlsplit(self.path).query)
        time.sleep(float(query.get("seconds", ["0"])[0]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        if query:
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
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    _main()
