"""What only the garbage collector frees: its pauses grow with what it finds."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from support.deadlines import until, within
from support.running_gateway import RunningGateway


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Count the gateway's objects that only the garbage collector frees, by type."""
    found: Counter[str] = Counter()
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(
            type(one).__qualname__
            for one in gc.garbage
            if type(one).__module__.startswith("gateway.")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        if was_enabled:
            gc.enable()


async def ask(
    gateway: RunningGateway, request: bytes, leaves: Callable[[bytes], bool] | None = None
) -> bytes:
    """Send a request on a connection of its own, and take all that comes, until it `leaves`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    got = b""
    async with within():
        writer.write(request)
        while (leaves is None or not leaves(got)) and (more := await reader.read(65536)):
            got += more
    if leaves is not None:
        reset_on_close(writer)
    writer.close()
    return got


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    """One that only closes may still wait for its response."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def leaves_none(gateway: RunningGateway, visit: Callable[[], Awaitable[None]]) -> None:
    """Check that visits leave no garbage, once their connections have ended."""
    others = gateway.gateway.connections

    async def at_rest() -> None:
        await until(lambda: gateway.gateway.connections <= others)

    await visit()
    await at_rest()
    with garbage() as found:
        for _ in range(3):
            await visit()
        await at_rest()
    assert not found, found
