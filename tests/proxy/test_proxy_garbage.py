"""A request that has ended is freed at once, however it ended: with a response that breaks off,
after other tries, by a deadline, as a tunnel, or by its client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from proxy.test_proxy_retries import refusing
from support.deadlines import duration, until, within
from support.garbage import ask, leaves_none, reset_on_close
from support.running_gateway import RunningGateway, StartGateway
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
    status: int
    """What the client gets; 0 where it leaves."""
    request: bytes = GET
    settings: dict[str, Any] = field(default_factory=dict)
    tries: int = 1
    """Connections to the upstream."""
    leaves: bool = False
    """Whether the client closes before the response has ended, when it has come so far."""
    stays: bool = False
    """Whether the upstream stays, and waits."""


VISITS = {
    "whole": Visit(OK, 200),
    "none": Visit(b"", 502),
    "tried again": Visit(
        b"", 502, settings={"retries": {"attempts": 2, "retry_on": ["reset"]}}, tries=3
    ),
    "other status": Visit(
        ERROR, 503, settings={"retries": {"attempts": 2, "retry_on": ["gateway-error"]}}, tries=3
    ),
    "cut": Visit(BEGUN, 200),
    "nonsense": Visit(b"nonsense\r\n\r\n", 502),
    "early": Visit(OK, 200, POST),
    "tunnel": Visit(SWITCHED, 101, UPGRADE),
    "tunnel that is left": Visit(SWITCHED, 101, UPGRADE, leaves=True, stays=True),
    "no tunnel": Visit(OK, 200, UPGRADE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")),
    "late": Visit(b"", 504, settings={"timeouts": {"per_try": duration(0.1)}}, stays=True),
    "late in all": Visit(b"", 504, settings={"timeouts": {"total": duration(0.1)}}, stays=True),
    "hedged": Visit(
        b"", 504, stays=True, tries=2,
        settings={"hedging": {"after": duration(0.01)}, "timeouts": {"total": duration(0.3)}},
    ),
    "left": Visit(BEGUN, 200, leaves=True, stays=True),
    "left without a response": Visit(b"", 0, leaves=True, stays=True),
}  # fmt: skip


async def status_of(
    gateway: RunningGateway, request: bytes = GET, leaves: Callable[[bytes], bool] | None = None
) -> int:
    """Send a request, and take the response, until it `leaves`."""
    return int((await ask(gateway, request, leaves))[9:12] or b"0")


def has_head(got: bytes) -> bool:
    return b"\r\n\r\n" in got


async def leave(gateway: RunningGateway, request: bytes, arrived: asyncio.Event) -> None:
    """Send a request, and leave when it has come to the upstream."""
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request)
    async with within():
        await arrived.wait()
    reset_on_close(writer)
    writer.close()


@pytest.mark.parametrize("how", VISITS.values(), ids=list(VISITS))
async def test_requests_leave_no_garbage(start: StartGateway, how: Visit) -> None:
    async def script(talk: Conversation, upstream: RawUpstream) -> None:
        if await talk.read_head() is not None:
            arrived.set()
            await talk.send(how.response)
        if how.stays:
            await talk.reader.read()

    async with RawUpstream(script=script) as upstream:
        settings = {"retries": {"attempts": 0}, **how.settings}
        gateway = await start("", upstreams={"main": {"targets": [upstream.url], **settings}})
        arrived = asyncio.Event()

        async def visit() -> None:
            arrived.clear()
            if how.leaves and not how.status:
                await leave(gateway, how.request, arrived)
            else:
                leaves = has_head if how.leaves else None
                assert await status_of(gateway, how.request, leaves) == how.status
            await until(lambda: not upstream.open_connections)

        await leaves_none(gateway, visit)
        assert upstream.connections == 4 * how.tries


@pytest.mark.parametrize("protocol", ["http1", "http2"])
async def test_connections_that_are_refused_leave_no_garbage(
    start: StartGateway, protocol: str
) -> None:
    retries = {"attempts": 2, "retry_on": ["connect-failure"]}
    with refusing() as dead:
        main = {"targets": [dead], "protocol": protocol, "retries": retries}
        gateway = await start("", upstreams={"main": main})

        async def visit() -> None:
            assert await status_of(gateway) == 502

        await leaves_none(gateway, visit)


async def test_copies_leave_no_garbage(start: StartGateway, upstream: RawUpstream) -> None:
    route = {
        "name": "a", "match": {"path": "/public"}, "auth": "none", "upstream": "main",
        "mirror": {"upstream": "copy"},
    }  # fmt: skip
    async with RawUpstream() as mirror:
        gateway = await start(
            upstream.url,
            upstreams={"main": {"targets": [upstream.url]}, "copy": {"targets": [mirror.url]}},
            routes=[route],
        )

        async def visit() -> None:
            seen = len(mirror.requests)
            assert await status_of(gateway) == 200
            await until(lambda: len(mirror.requests) > seen)

        await leaves_none(gateway, visit)


@pytest.mark.parametrize("ends_by", ["client", "upstream"])
async def test_tunnels_that_end_with_their_token_leave_no_garbage(
    start: StartGateway, ends_by: str
) -> None:
    async def script(talk: Conversation, upstream: RawUpstream) -> None:
        await talk.read_head()
        await talk.send(SWITCHED)
        if ends_by == "client":
            await talk.reader.read()

    route = {
        "name": "api", "match": {"path": "/api"}, "upstream": "main",
        "close_websockets_with_token": True,
    }  # fmt: skip
    async with RawUpstream(script=script) as upstream:
        gateway = await start(upstream.url, routes=[route])
        token = await gateway.token("shop")
        fields = f"Authorization: Bearer {token}\r\n\r\n".encode()
        request = UPGRADE.replace(b"/public", b"/api")[:-2] + fields
        leaves = has_head if ends_by == "client" else None

        async def visit() -> None:
            assert await status_of(gateway, request, leaves) == 101
            await until(lambda: not upstream.open_connections)

        await leaves_none(gateway, visit)
