"""Clients that close their sending side after a request, and wait for the response."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.deadlines import duration, until
from support.running_gateway import RawClient, RunningGateway, StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream

GET = b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
HTTP_10 = b"GET /public HTTP/1.0\r\n\r\n"
CHUNKED = (
    b"POST /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
)


@pytest.fixture
async def patient(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    """A gateway that keeps half-closed clients for longer than a test takes."""
    return await start(upstream.url, listen={"timeouts": {"half_close": duration(60)}})


async def half_close(gateway: RunningGateway, request: bytes) -> RawClient:
    client = await gateway.connect()
    await client.send(request)
    client.writer.write_eof()
    return client


@pytest.mark.parametrize("request_", [GET, POST, HTTP_10, CHUNKED])
async def test_client_that_half_closes_receives_the_response_and_the_end(
    patient: RunningGateway, upstream: RawUpstream, request_: bytes
) -> None:
    eof_seen = asyncio.Event()

    async def respond_later(conversation: Conversation, upstream: RawUpstream) -> None:
        received = await conversation.read_head()
        assert received is not None
        await conversation.read_body(received)
        await eof_seen.wait()
        await conversation.send(OK)
        await conversation.reader.read()

    upstream.script = respond_later
    client = await half_close(patient, request_)
    # The end of the client's side has long been seen when the upstream responds.
    await until(lambda: upstream.open_connections == 1)
    for _ in range(3):
        assert (await patient.send(b"GET /none HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 404")
    eof_seen.set()
    received = await client.read_to_end()
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nok")
    line = (await patient.logged(4))[-1]
    assert (line["status"], line.get("reason")) == (200, None)


async def test_pipelined_requests_before_a_half_close_all_get_responses(
    patient: RunningGateway, upstream: RawUpstream
) -> None:
    client = await half_close(patient, GET + POST + GET + b"\r\n")
    assert (await client.read_to_end()).count(b"HTTP/1.1 200 OK\r\n") == 3
    assert len(upstream.requests) == 3


async def test_stream_goes_on_for_a_half_closed_client(
    patient: RunningGateway, upstream: RawUpstream
) -> None:
    async def stream(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(8):
            await conversation.send(b"x" * 500_000)

    upstream.script = stream
    client = await half_close(patient, GET)
    assert (await client.read_to_end()).count(b"x") == 4_000_000


async def test_body_that_a_half_close_cuts_is_not_sent_on_as_whole(
    patient: RunningGateway, upstream: RawUpstream
) -> None:
    client = await half_close(patient, POST[:-2])
    assert b" 200 " not in (await client.read_to_end()).partition(b"\r\n")[0]
    await until(lambda: upstream.open_connections == 0)
    assert upstream.requests == []


async def test_client_that_left_is_noticed_when_the_time_of_half_closed_ones_is_over(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async def say_nothing(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    upstream.script = say_nothing
    gateway = await start(upstream.url, listen={"timeouts": {"half_close": "50ms"}})
    client = await half_close(gateway, GET)
    await until(lambda: upstream.connections == 1 and upstream.open_connections == 0)
    line = (await gateway.logged(1))[0]
    assert (line["status"], line["reason"]) == (499, "client_closed")
    await client.close()


async def test_client_that_left_a_stream_is_noticed_by_what_is_sent(
    patient: RunningGateway, upstream: RawUpstream
) -> None:
    async def stream(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not conversation.reader.at_eof():
            await conversation.send(b"event\n\n")
            await asyncio.wait([asyncio.ensure_future(conversation.reader.read(1))], timeout=0.01)

    upstream.script = stream
    client = await patient.connect()
    await client.send(GET)
    await client.reader.readuntil(b"event\n\n")
    await client.close()
    await until(lambda: upstream.open_connections == 0)
    assert (await patient.logged(1))[0]["status"] == 200


async def test_zero_takes_a_half_closed_client_for_gone(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async def say_nothing(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    upstream.script = say_nothing
    gateway = await start(upstream.url, listen={"timeouts": {"half_close": 0}})
    client = await half_close(gateway, GET)
    assert await client.read_to_end() == b""
    assert (await gateway.logged(1))[0]["status"] == 499


async def test_half_closed_client_of_a_unix_socket_receives_the_response(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    await start(upstream.url, listen={"unix": {"path": path}})
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(GET)
    writer.write_eof()
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
