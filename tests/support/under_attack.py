"""What the tests of resource attacks count, and the honest client that must not notice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.deadlines import within
from support.running_gateway import RawClient, RunningGateway

from gateway.downstream.h1 import H1Connection

HONEST = b"GET /public/honest HTTP/1.1\r\nHost: h\r\n\r\n"


def open_connections(gateway: RunningGateway) -> list[H1Connection]:
    """The connections that the gateway holds open to clients."""
    connections = gateway.gateway._data._clients.connections
    return [one for one in connections if isinstance(one, H1Connection)]


def held_bytes(gateway: RunningGateway) -> int:
    """What the gateway keeps for its clients: of what they sent, and of what they don't take."""
    total = 0
    for connection in open_connections(gateway):
        total += len(connection._buffer)
        if connection.transport is not None:
            total += connection.transport.get_write_buffer_size()
    return total


def unsent_bytes(gateway: RunningGateway) -> int:
    """The most that the kernel keeps of a response for one client, sent or not (Linux)."""
    port = f":{gateway.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return max(
        (int(line[4].partition(":")[0], 16) for line in lines if line[1].endswith(port)), default=0
    )


class Honest:
    """A client on one connection, which asks again and again."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self.responses = 0

    async def fetch(self) -> None:
        """Ask once; the response must be right."""
        await self._client.send(HONEST)
        response = await self._client.read_response()
        assert (response.status, response.body) == (200, b"ok")
        self.responses += 1

    async def _keep_asking(self) -> None:
        while True:
            await self.fetch()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def honest_traffic(gateway: RunningGateway) -> AsyncIterator[Honest]:
    """Somebody who asks before, during and after an attack, and gets each response."""
    honest = Honest(await gateway.connect())
    await honest.fetch()
    decision_clients = asyncio.create_task(honest._keep_asking())
    try:
        yield honest
        before = honest.responses
        async with within():
            while honest.responses < before + 3 and not decision_clients.done():
                await asyncio.sleep(0.005)
    finally:
        decision_clients.cancel()
        (ended,) = await asyncio.gather(decision_clients, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError), ended


async def connect_many(gateway: RunningGateway, count: int = 100) -> list[RawClient]:
    """So many clients."""
    return [await gateway.connect() for _ in range(count)]


async def status_of(client: RawClient) -> int:
    """Of the first response; 0 where the connection was cut without one."""
    with contextlib.suppress(ConnectionError):
        response = await client.read_to_end()
        if response:
            return int(response.split(b" ", 2)[1])
    return 0


async def drip(client: RawClient, piece: bytes = b"x", pause_s: float = 0.02) -> None:
    """Send without end, or until the connection is."""
    with contextlib.suppress(ConnectionError):
        while True:
            await client.send(piece)
            await asyncio.sleep(pause_s)


async def end(*attackers: asyncio.Task[None]) -> None:
    """Stop attackers, and wait until they have."""
    for attacker in attackers:
        attacker.cancel()
    await asyncio.gather(*attackers, return_exceptions=True)
