"""Clients that want to use the gateway up: slow, many, without end. What is kept for them is
bounded, they are let go, and honest requests are answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import sys

import pytest
from support.deadlines import duration, settled, until
from support.running_gateway import RawClient, RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream
from support.under_attack import (
    connect_many,
    end,
    held_bytes,
    honest_traffic,
    open_connections,
    status_of,
    unsent_bytes,
)

from gateway.downstream.h1 import MAX_BUFFERED_BYTES
from gateway.downstream.sockets import MAX_UNSENT_BYTES

HIGH_WATER_BYTES = 64 * 1024
"""At which a transport asks to be written to no more."""
READ_BYTES = 256 * 1024
"""The most that one read of a socket brings (uvloop)."""


async def test_responses_that_no_client_reads_are_kept_in_bounds_and_cut(
    start: StartGateway, upstream: RawUpstream
) -> None:
    sent = 0

    async def pour(conversation: Conversation, upstream: RawUpstream) -> None:
        nonlocal sent
        while (received := await conversation.read_head()) is not None:
            if b"/honest" in received.request_line:
                await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                await conversation.send(b"x" * 65536)
                sent += 65536

    upstream.script = pour
    gateway = await start(upstream.url, listen={"timeouts": {"body": duration(2)}})
    async with honest_traffic(gateway):
        slow = await connect_many(gateway, 20)
        for client in slow:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(b"GET /public/large HTTP/1.1\r\nHost: h\r\n\r\n")
        most = 0

        def flowing() -> int:
            nonlocal most
            most = max(most, held_bytes(gateway))
            return sent

        await settled(flowing)
        assert most > 0
        assert most <= 20 * (HIGH_WATER_BYTES + READ_BYTES)
        if sys.platform == "linux":
            # Nor does the kernel take megabytes for each of them.
            assert 0 < unsent_bytes(gateway) <= 2 * MAX_UNSENT_BYTES
        await until(lambda: len(open_connections(gateway)) == 1)
        await until(lambda: upstream.open_connections <= 1)


async def test_attempts_above_the_cap_are_let_go_and_those_within_it_go_on(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"max_connections": 20})
    async with honest_traffic(gateway):
        held = await connect_many(gateway, 19)
        await until(lambda: len(open_connections(gateway)) == 20)
        most = 0
        for _ in range(6):
            responses = await asyncio.gather(
                *(status_of(client) for client in await connect_many(gateway, 50))
            )
            assert set(responses) == {503}
            most = max(most, len(open_connections(gateway)))
        assert most <= 20 + 50
        for client in held:
            await client.send(b"GET /public/honest HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.read_response()).status == 200
        await until(lambda: len(open_connections(gateway)) == 20)
    refused = await gateway.metric("gateway_connections_refused_total", reason="max_connections")
    assert refused == 300


@pytest.mark.parametrize(
    ("beginning", "more", "status"),
    [
        (b"GET /public HTTP/1.1\r\nHost: h\r\n", b"X-Again: 1\r\n", 431),
        (b"GET /public HTTP/1.1\r\nHost: h\r\nX-Long: ", b"x" * 100, 431),
        (b"GET /", b"x" * 100, 431),
        (b"\r\n", b"\r\n" * 50, 0),
        (b"\r\n", b"\r", 400),
        (b"POST /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 100,
         400),
        (b"POST /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0", b"0" * 100,
         400),
        (b"POST /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
         b"X-Trailer: 1\r\n", 400),
        (b"POST /token HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
         b"64\r\n" + b"x" * 100 + b"\r\n", 413),
    ],
    ids=["fields", "field", "target", "empty lines", "carriage returns", "chunk extension",
         "chunk size", "trailers", "body for the provider"],
)  # fmt: skip
async def test_what_never_ends_is_cut_at_its_limit(
    start: StartGateway, upstream: RawUpstream, beginning: bytes, more: bytes, status: int
) -> None:
    gateway = await start(
        upstream.url, listen={"timeouts": {"keepalive": duration(2), "head": duration(30)}}
    )
    async with honest_traffic(gateway):
        attackers = await connect_many(gateway, 10)
        most = 0

        async def pour(client: RawClient) -> None:
            nonlocal most
            with contextlib.suppress(ConnectionError):
                await client.send(beginning)
                for _ in range(10_000):  # a million bytes
                    await client.send(more)
                    most = max(most, held_bytes(gateway))
                    await asyncio.sleep(0)

        pouring = [asyncio.create_task(pour(client)) for client in attackers]
        ends = await asyncio.gather(*(status_of(client) for client in attackers))
        assert set(ends) <= {status, 0}
        await end(*pouring)
        assert most <= 10 * (MAX_BUFFERED_BYTES + READ_BYTES)
        for client in attackers:
            await client.close()
        await until(lambda: len(open_connections(gateway)) == 1)
    assert all(b"/honest" in received.request_line for received in upstream.requests)


async def test_pipeline_whose_responses_no_client_reads_is_not_read_on(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" if b"/honest" in received.request_line
        else b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000
    )  # fmt: skip
    async with honest_traffic(gateway):
        attackers = await connect_many(gateway, 5)
        for client in attackers:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(b"GET /public/flood HTTP/1.1\r\nHost: h\r\n\r\n" * 100_000)
        most = 0

        def floods() -> int:
            nonlocal most
            most = max(most, held_bytes(gateway))
            return sum(b"/flood" in one.request_line for one in upstream.requests)

        await until(lambda: floods() > 0)
        assert await settled(floods, for_s=0.5) < 5 * 1000, "it was answered on and on"
        assert most <= 5 * (MAX_BUFFERED_BYTES + READ_BYTES + HIGH_WATER_BYTES + 50_000)


async def test_client_that_takes_nothing_leaves_no_blocked_connection_behind(
    start: StartGateway, upstream: RawUpstream
) -> None:
    """Though the last of a response may fill its client up, what it came on serves others."""
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 150000\r\n\r\n" + b"x" * 150_000
    )
    timeouts = {"response_head": duration(2)}
    gateway = await start(
        upstream.url, upstreams={"main": {"targets": [upstream.url], "timeouts": timeouts}}
    )
    slow = await connect_many(gateway, 5)
    for client in slow:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n" * 1000)
    await until(lambda: all(one.is_write_paused for one in open_connections(gateway)))
    await until(lambda: not any(one.request for one in open_connections(gateway)))
    others = await connect_many(gateway, 5)
    for client in others:
        await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    for client in others:
        response = await client.read_to_end()
        assert response.startswith(b"HTTP/1.1 200 ")
        assert response.endswith(b"x" * 150_000)


async def test_refusals_of_a_pipeline_let_others_in_between(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    """Answers that need no upstream are made in one go, but only so many."""
    async with honest_traffic(gateway) as honest:
        attacker = await gateway.connect()
        attacker.writer.write(b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n" * 5000)
        before = honest.responses
        got = 0
        while got < 5000:
            got += (await attacker.reader.read(1 << 20)).count(b"HTTP/1.1 404 ")
        assert honest.responses > before


async def test_compressed_bodies_pass_unread_both_ways(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    """A gzip bomb is as large as it is: nobody here unpacks it."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(bomb), bomb)
    )
    client = await gateway.connect()
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, held_bytes(gateway))
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    await client.send(
        b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    )
    response = await client.read_response()
    watching.cancel()
    assert (response.header("content-encoding"), response.body) == ("gzip", bomb)
    (received,) = upstream.requests
    assert (received.all(b"content-encoding"), received.body) == ([b"gzip"], bomb)
    assert most <= len(bomb) + READ_BYTES


@pytest.mark.parametrize("path", ["/token", "/createClient"])
async def test_compressed_request_to_the_provider_is_not_unpacked(
    gateway: RunningGateway, path: str
) -> None:
    bomb = gzip.compress(b"client_id=" + b"x" * 30_000_000)
    assert len(bomb) < 64 * 1024
    for kind in ("application/x-www-form-urlencoded", "application/json"):
        async with gateway.session.post(
            gateway.url(path),
            data=bomb,
            headers={
                "Content-Encoding": "gzip",
                "Content-Type": kind,
                "Authorization": "Bearer test-registration-token",
            },
        ) as response:
            assert response.status in {400, 401, 415}
