"""Clients of HTTP/2 without a request: idle, or slow with a frame that has begun."""

from __future__ import annotations

import asyncio

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    WindowUpdateFrame,
)
from support.clients.h2_raw import NO_ERROR, TIMEOUT, RawH2Client, raw_frame
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

PRIORITY_UPDATE = raw_frame(0x10, 0, 0, b"\0\0\0\3u=1")
PING = PingFrame(0, opaque_data=b"12345678").serialize()


async def connect_and_request(gateway: RunningGateway) -> RawH2Client:
    client = await RawH2Client.connect(gateway.port)
    client.send(client.head(1))
    response = await client.frame(HeadersFrame, 1)
    assert isinstance(response, HeadersFrame)
    return client


async def code_at_end(client: RawH2Client) -> int:
    frame = await client.frame(GoAwayFrame)
    assert isinstance(frame, GoAwayFrame)
    await client.close()
    return int(frame.error_code)


@pytest.mark.parametrize(
    "frame",
    [
        PRIORITY_UPDATE,
        raw_frame(0xBB, 0, 0, b"unknown"),
        PriorityFrame(3, depends_on=1).serialize(),
        WindowUpdateFrame(1, window_increment=1).serialize(),
    ],
    ids=["priority update", "unknown type", "priority", "window of a closed stream"],
)
async def test_whole_frame_that_means_nothing_is_no_slow_head(
    start: StartGateway, upstream: RawUpstream, frame: bytes
) -> None:
    timeouts = {"head": "2s", "keepalive": "300ms"}
    gateway = await start(upstream.url, listen={"timeouts": timeouts})
    client = await connect_and_request(gateway)
    client.send(frame)
    assert await code_at_end(client) == NO_ERROR
    assert not gateway.gateway.metrics.data_plane.h2.errors["head_timeout"]


@pytest.mark.parametrize(
    "beginning",
    [
        PRIORITY_UPDATE[:-1],
        PRIORITY_UPDATE[:5],
        HeadersFrame(3, data=b"\x82", flags=["END_STREAM"]).serialize(),
        HeadersFrame(3, data=b"\x82", flags=["END_STREAM"]).serialize()
        + ContinuationFrame(3, data=b"\x86").serialize(),
    ],
    ids=["frame", "head of a frame", "head", "head and more of it"],
)
async def test_beginning_without_an_end_is_slow(
    start: StartGateway, upstream: RawUpstream, beginning: bytes
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"head": "200ms"}})
    client = await connect_and_request(gateway)
    client.send(PING, beginning)
    assert await code_at_end(client) == TIMEOUT
    assert gateway.gateway.metrics.data_plane.h2.errors["head_timeout"] == 1


async def test_frames_that_end_as_others_begin_win_no_time(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"head": "200ms"}})
    client = await connect_and_request(gateway)
    client.send(PING[:5])
    ended = asyncio.create_task(code_at_end(client))
    while not ended.done():
        client.send(PING[5:] + PING[:5])
        await asyncio.sleep(0.02)
    assert ended.result() == TIMEOUT


async def test_head_that_begins_during_another_request_is_slow_after_it(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"head": "200ms"}})
    client = await RawH2Client.connect(gateway.port)
    client.send(client.head(1), client.head(3).serialize()[:-1])
    assert await code_at_end(client) == TIMEOUT


async def test_head_that_is_whole_in_time_is_served(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"head": "2s"}})
    client = await connect_and_request(gateway)
    head = client.head(3)
    for byte in head.serialize():
        client.send(bytes((byte,)))
        await asyncio.sleep(0)
    response = await client.frame(HeadersFrame, 3)
    assert isinstance(response, HeadersFrame)
    await client.close()
