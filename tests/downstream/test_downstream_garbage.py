"""A connection that has ended is freed at once: it leaves nothing to the garbage collector, whose
pauses grow with what it finds, and whose garbage a flood of connections makes quickly."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame, RstStreamFrame
from support.clients.h2_raw import CANCEL, GET, RawH2Client
from support.garbage import ask, leaves_none
from support.running_gateway import RunningGateway

HTTP1 = {
    "a request": b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "pipelined": b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n" * 20
    + b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "refused": b"GET /api HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "a body": b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"
    b"Connection: close\r\n\r\nabc",
    "no request": b"nonsense\r\n\r\n",
    "a large head": b"GET / HTTP/1.1\r\nHost: h\r\n" + b"x: y\r\n" * 300 + b"\r\n",
    "no TLS": b"\x16\x03\x01",
}


@pytest.mark.parametrize("sent", HTTP1.values(), ids=list(HTTP1))
async def test_http1_leaves_none(gateway: RunningGateway, sent: bytes) -> None:
    async def visit() -> None:
        await ask(gateway, sent)

    await leaves_none(gateway, visit)


def requests(client: RawH2Client) -> Iterator[Frame]:
    for stream in (1, 3, 5):
        yield client.head(stream)
    yield client.head(7, ends=False)
    yield DataFrame(7, data=b"abc", flags=("END_STREAM",))
    yield client.head(9, [*GET[:3], (":path", "/api")])


def resets(client: RawH2Client) -> Iterator[Frame]:
    for stream in range(1, 41, 2):
        yield client.head(stream)
        yield RstStreamFrame(stream, error_code=CANCEL)


def malformed(client: RawH2Client) -> Iterator[Frame]:
    yield client.head(1, [*GET, ("UPPER", "x")])
    yield client.head(3, [*GET, ("te", "gzip")])
    yield client.head(5, [*GET, ("x-large", "x" * 70_000)])


def unfinished(client: RawH2Client) -> Iterator[Frame]:
    yield client.head(1, ends=False)
    yield DataFrame(1, data=b"abc")


def pings(client: RawH2Client) -> Iterator[Frame]:
    return itertools.repeat(PingFrame(0, opaque_data=b"12345678"), 20_000)


@pytest.mark.parametrize("frames", [requests, resets, malformed, unfinished, pings])
async def test_http2_leaves_none(
    gateway: RunningGateway, frames: Callable[[RawH2Client], Iterator[Frame]]
) -> None:
    async def visit() -> None:
        client = await RawH2Client.connect(gateway.port)
        await client.flood(frames(client))
        client.send(PingFrame(0, opaque_data=b"the last"))
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while b"the last" not in (await client.frame((PingFrame, GoAwayFrame))).serialize():
                pass
        await client.close()

    await leaves_none(gateway, visit)
