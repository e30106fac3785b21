"""A client that notices every request that gets no response."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable

from support.deadlines import scaled


class LoadClient(threading.Thread):
    """Sends requests on one connection, as long as the gateway keeps it, then on another.

    A connection that is refused was never accepted; a request on an accepted one that is
    not answered is lost.
    """

    def __init__(self, port: int, token: str) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.request = (
            f"GET /api/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        self.completed = 0
        self.wrong = 0
        self.lost: list[str] = []
        self.was_refused = False

    def run(self) -> None:
        """Until the gateway takes no more connections."""
        while not self.was_refused:
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=scaled())
            except ConnectionRefusedError:
                self.was_refused = True
                return
            except OSError as error:
                self.lost.append(f"connect: {error!r}")
                return
            with connection:
                self._use(connection)

    def _use(self, connection: socket.socket) -> None:
        while True:
            try:
                connection.sendall(self.request)
                response = b""
                while b"\r\n\r\nok" not in response:
                    piece = connection.recv(65536)
                    if not piece:
                        self.lost.append(f"closed after {response!r}")
                        return
                    response += piece
            except OSError as error:
                self.lost.append(repr(error))
                return
            self.completed += 1
            self.wrong += not response.startswith(b"HTTP/1.1 200 ")
            if b"Connection: close" in response:
                return


def completed_by(clients: Iterable[LoadClient]) -> int:
    """How many requests were answered."""
    return sum(client.completed for client in clients)
