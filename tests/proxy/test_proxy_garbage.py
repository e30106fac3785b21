"""A request that has ended is freed at once, however it ended: with a response that breaks off,
after other tries, by a deadline, as a tunnel, or by its client."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.deadlines import duration, until, within
from support.garbage import leaves_none
from support.running_gateway import StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream

GET = b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
POST = b"POST /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 100000\r\n\r\nabc"
UPGRADE = (
    b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun"
ERROR = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno"


@dataclass(frozen=True)
class Visit:
    """A request, and what becomes of it."""

    response: bytes
    """Then the upstream closes."""
    request: bytes = GET
    settings: dict[str, Any] = field(default_factory=dict)
    leaves: bool = False
    """Whether the client closes before the response has ended."""
    stays: bool = False
    """Whether the upstream stays, and waits."""


VISITS = {
    "whole": Visit(OK),
    "none": Visit(b""),
    "tried again": Visit(b"", settings={"retries": {"attempts": 2, "retry_on": ["reset"]}}),
    "other status": Visit(
        ERROR, settings={"retries": {"attempts": 2, "retry_on": ["gateway-error"]}}
    ),
    "cut": Visit(BEGUN),
    "nonsense": Visit(b"nonsense\r\n\r\n"),
    "early": Visit(OK, POST, leaves=True),
    "tunnel": Visit(SWITCHED, UPGRADE),
    "no tunnel": Visit(OK, UPGRADE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")),
    "late": Visit(b"", settings={"timeouts": {"per_try": duration(0.1)}}, stays=True),
    "late in all": Visit(b"", settings={"timeouts": {"total": duration(0.1)}}, stays=True),
    "hedged": Visit(b"", settings={"hedging": {"after": duration(0.01)}}),
    "left": Visit(BEGUN, leaves=True, stays=True),
    "left without a response": Visit(b"", leaves=True, stays=True),
}


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    """One that only closes may still wait for its response."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("how", VISITS.values(), ids=list(VISITS))
async def test_requests_leave_no_garbage(start: StartGateway, how: Visit) -> None:
    async def script(talk: Conversation, upstream: RawUpstream) -> None:
        if await talk.read_head() is not None:
            await talk.send(how.response)
        if how.stays:
            await talk.reader.read()

    async with RawUpstream(script=script) as upstream:
        settings = {"retries": {"attempts": 0}, **how.settings}
        gateway = await start("", upstreams={"main": {"targets": [upstream.url], **settings}})

        async def visit() -> None:
            seen = upstream.connections
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            async with within():
                writer.write(how.request)
                if how.leaves:
                    await until(lambda: upstream.connections > seen)
                    reset_on_close(writer)
                else:
                    await reader.read()
            writer.close()
            await until(lambda: not upstream.open_connections)

        await leaves_none(gateway, visit)
