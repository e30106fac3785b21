"""Clients that are slow on purpose, and those that have a reason to be."""

from __future__ import annotations

import asyncio
import contextlib

from support.deadlines import duration, scaled, until
from support.protocols import each_protocol, only_http1, only_http1_upstream
from support.running_gateway import RawClient, StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream
from support.under_attack import (
    connect_many,
    drip,
    end,
    honest_traffic,
    open_connections,
    status_of,
)

pytestmark = each_protocol


@only_http1
async def test_heads_that_come_byte_by_byte_end_with_408(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"head": duration(0.5)}})
    async with honest_traffic(gateway):
        slow = await connect_many(gateway)
        for client in slow:
            await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\nX-Slow: ")
        dripping = [asyncio.create_task(drip(client)) for client in slow]
        assert [await status_of(client) for client in slow] == [408] * 100
        await end(*dripping)
        for client in slow:
            await client.close()
        await until(lambda: len(open_connections(gateway)) == 1)
    assert all(b"/honest" in received.request_line for received in upstream.requests)


async def test_bodies_that_stop_end_with_408_and_give_their_upstream_connections_back(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"body": duration(0.5)}})
    async with honest_traffic(gateway):
        slow = await connect_many(gateway, 50)
        for client in slow:
            await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\nx")
        assert [await status_of(client) for client in slow] == [408] * 50
        await until(lambda: upstream.open_connections <= 1)


async def test_bodies_that_come_byte_by_byte_end_with_408(
    start: StartGateway, upstream: RawUpstream
) -> None:
    """50 bytes a second are less than `listen.limits.min_body_rate`."""
    gateway = await start(upstream.url, listen={"timeouts": {"body": duration(0.5)}})
    async with honest_traffic(gateway):
        slow = await connect_many(gateway, 20)
        for client in slow[:10]:
            await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n")
        for client in slow[10:]:
            await client.send(
                b"POST /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
        dripping = [
            *(asyncio.create_task(drip(client)) for client in slow[:10]),
            *(asyncio.create_task(drip(client, b"1\r\nx\r\n", 0.1)) for client in slow[10:]),
        ]
        assert [await status_of(client) for client in slow] == [408] * 20
        await end(*dripping)
        await until(lambda: upstream.open_connections <= 1)


async def test_body_that_is_fast_enough_may_take_long(
    start: StartGateway, upstream: RawUpstream
) -> None:
    pause_s = scaled(0.5)
    gateway = await start(
        upstream.url, listen={"timeouts": {"body": duration(0.5)}, "limits": {"min_body_rate": 100}}
    )
    client = await gateway.connect()
    await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 8000\r\n\r\n")
    for _ in range(20):  # for twice as long as a pause may last
        await client.send(b"x" * 400)
        await asyncio.sleep(pause_s / 8)
    assert (await client.read_response()).status == 200


@only_http1_upstream
async def test_time_that_the_upstream_takes_is_not_the_clients(
    start: StartGateway, upstream: RawUpstream
) -> None:
    size, pause_s = 16 * 1024 * 1024, scaled(1)
    waits_for_more = asyncio.Event()

    async def take_late(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.reader.readexactly(1)
        waits_for_more.set()
        await asyncio.sleep(1.2 * pause_s)
        await conversation.reader.readexactly(size + 1)
        await conversation.send(OK)

    upstream.script = take_late
    # At this rate no byte wins any time: a pause is all that the client has.
    limits = {"min_body_rate": 1_000_000_000_000}
    gateway = await start(
        upstream.url, listen={"timeouts": {"body": duration(1)}, "limits": limits}
    )
    client = await gateway.connect()
    head = b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (size + 2)
    await client.send(head + b"x")
    await waits_for_more.wait()
    await client.send(b"x" * size)
    await asyncio.sleep(pause_s / 10)  # a pause of its own, which it has time for
    await client.send(b"x")
    assert (await client.read_response()).status == 200


async def test_body_that_is_slow_without_end_ends_with_the_time_for_the_whole(
    start: StartGateway, upstream: RawUpstream
) -> None:
    """Never silent for long enough to be cut: only `timeouts.total` ends it."""
    gateway = await start(
        upstream.url,
        upstreams={"main": {"targets": [upstream.url], "timeouts": {"total": duration(0.6)}}},
    )
    async with honest_traffic(gateway):
        client = await gateway.connect()
        await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n")
        dripping = asyncio.create_task(drip(client))
        assert await status_of(client) == 504
        await end(dripping)
        await until(lambda: upstream.open_connections <= 1)


@only_http1
async def test_empty_lines_win_no_time(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"keepalive": duration(0.4)}})
    async with honest_traffic(gateway):
        attackers = await connect_many(gateway, 10)
        for number, client in enumerate(attackers):
            if number % 2:  # also behind a request
                await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
                assert (await client.read_response()).status == 200

        async def drip(client: RawClient) -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await client.send(b"\r\n")
                    await asyncio.sleep(0.02)
                    await client.send(b"\r")
                    await asyncio.sleep(0.02)
                    await client.send(b"\n")

        dripping = [asyncio.create_task(drip(client)) for client in attackers]
        await until(lambda: len(open_connections(gateway)) == 1)
        await end(*dripping)
