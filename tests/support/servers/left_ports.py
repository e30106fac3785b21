"""Ports that servers of tests have left."""

from __future__ import annotations

import atexit
import socket
from collections import deque

_left: deque[socket.socket] = deque()
_KEPT = 64


def keep(port: int) -> None:
    """Keep `port` of 127.0.0.1 from servers that ask for any, for the next 64 calls.

    A gateway outlives the upstreams of its test, and checks their health meanwhile: another server
    on the port would count these requests. Connections are refused, and a server that asks for
    this very port gets it.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:  # its server is back, or somebody was faster
        sock.close()
        return
    _left.append(sock)
    while len(_left) > _KEPT:
        _left.popleft().close()


@atexit.register
def close() -> None:
    """Let go of all of them."""
    while _left:
        _left.pop().close()
