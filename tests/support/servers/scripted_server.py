"""A server on threads that does with each request what a test says, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Response = Callable[[int], bytes | None]
"""Given the number of the request, from 0 on: the bytes to send, or None to close."""


class ScriptedServer:
    """Listens on a port of its own and keeps what it got."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._lock = threading.Lock()
        self.requests: list[bytes] = []
        self.peers: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self.listener.accept()
            except OSError:
                return
            self.peers.append(address[0])
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    received += piece
                head, _, received = received.partition(b"\r\n\r\n")
                with self._lock:
                    number = len(self.requests)
                    self.requests.append(head)
                response = self._response(number)
                if response is None:
                    return
                connection.sendall(response)


@contextmanager
def scripted_server(response: Response) -> Iterator[ScriptedServer]:
    """A running one."""
    server = ScriptedServer(response)
    try:
        yield server
    finally:
        # Wakes the thread that accepts, which closing alone does not.
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
