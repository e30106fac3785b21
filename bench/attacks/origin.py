"""The upstreams of the attacked gateway: `ok`, or much."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable

from bench.attacks.attackers import body_length

LARGE_BYTES = 64 * 1024 * 1024
PIECE = b"x" * 16384
MAX_UNSENT_BYTES = 128 * 1024


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a connection is answered until it ends."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(body_length(head))
            pieces = LARGE_BYTES // len(PIECE) if b"/large " in head else 0
            length = len(PIECE) * pieces or 2
            # Head and body of a small one at once: asyncio sets TCP_NODELAY on no socket of its
            # callers', and the second of two writes would wait for 40 ms.
            small = b"" if pieces else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, small))
            for _ in range(pieces):
                writer.write(PIECE)
                await writer.drain()
    writer.transport.abort()


async def serve_origin(ready: Callable[[], None] | None) -> None:
    """Report the port, call `ready` if given, and serve until the standard input ends."""
    opened = socket.create_server(("127.0.0.1", 0))
    # Elsewhere it would be another machine: what its kernel holds is not to be counted.
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
    server = await asyncio.start_server(respond, sock=opened)
    print(server.sockets[0].getsockname()[1], flush=True)
    if ready is not None:
        ready()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)
