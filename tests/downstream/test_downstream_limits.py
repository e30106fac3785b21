"""Clients that are slow, too large, too many, or do not speak HTTP."""

from __future__ import annotations

import pytest
from support.deadlines import duration, until
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /public HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /public HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"GET /public HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello",
        b"GET /public HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello",
        b"GET /public HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"GET /public HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET /public HTTP/1.1\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nX-A : 1\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n folded\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nX A: 1\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\n: 1\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nX-A: a\x00b\r\n\r\n",
        b"GET /public HTTP/1.1\r\nHost: h\r\nX-A: a\rb\r\n\r\n",
        b"GET /public HTTP/1.1\nHost: h\n\n",
        b"GET /pub lic HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /public HTTP/3.0\r\nHost: h\r\n\r\n",
        b"G@T /public HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
        b"GET h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_ambiguous_request_is_refused_and_the_connection_closed(
    gateway: RunningGateway, upstream: RawUpstream, request_bytes: bytes
) -> None:
    response = await gateway.send(
        request_bytes + b"GET /public/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert response.split(b" ")[1] in {b"400", b"501"}
    assert response.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in response
    assert all(b"smuggled" not in received.request_line for received in upstream.requests)
    assert not upstream.requests


async def test_rejection_of_an_unreadable_request_logs_nothing_of_it(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    secret = b"canary-4711"
    await gateway.send(
        b"GET /public HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\x00\r\n\r\n" % secret
    )
    (line,) = await gateway.logged(1)
    assert (line["route"], line["status"], line["reason"]) == ("_none", 400, "malformed")
    assert secret.decode() not in caplog.text + str(line)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /public HTTP/1.1\r\nHost: h\r\nX-Large: %b\r\n\r\n" % (b"x" * 40_000),
        b"GET /public HTTP/1.1\r\nHost: h\r\n%b\r\n"
        % b"".join(b"X-%d: %b\r\n" % (number, b"x" * 1000) for number in range(40)),
        b"GET /public HTTP/1.1\r\nHost: h\r\n%b\r\n"
        % b"".join(b"X-%d: 1\r\n" % number for number in range(120)),
        b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"x" * 40_000),
        b"GET /public HTTP/1.1\r\nHost: h\r\nX-Never-Ends: %b" % (b"x" * 60_000),
    ],
)
async def test_head_above_the_limits_is_431(
    gateway: RunningGateway, upstream: RawUpstream, head: bytes
) -> None:
    response = await gateway.send(head)
    assert response.startswith(b"HTTP/1.1 431 ")
    assert upstream.requests == []


async def test_head_that_comes_too_slowly_is_408(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"head": duration(0.5)}})
    client = await gateway.connect()
    await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\nX-Slow: ")
    response = await client.read_to_end()
    assert response.startswith(b"HTTP/1.1 408 ")
    (line,) = await gateway.logged(1)
    assert (line["status"], line["reason"]) == (408, "head_timeout")
    await client.close()


async def test_second_head_on_a_connection_has_a_deadline_too(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"head": duration(0.5)}})
    client = await gateway.connect()
    await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.read_response()).status == 200
    await client.send(b"GET /public HTTP/1.1\r\n")
    assert (await client.read_to_end()).startswith(b"HTTP/1.1 408 ")
    await client.close()


async def test_body_that_stops_is_408_and_the_upstream_sees_it_break_off(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"body": duration(0.5)}})
    client = await gateway.connect()
    await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhal")
    assert (await client.read_response()).status == 408
    await until(lambda: upstream.broken_bodies == 1)
    assert upstream.requests == []
    await client.close()


async def test_idle_connection_is_closed(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"keepalive": duration(0.5)}})
    client = await gateway.connect()
    await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.read_response()).status == 200
    assert await client.read_to_end() == b""
    await client.close()


async def test_connection_above_the_cap_is_503_and_the_others_go_on(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"max_connections": 2})
    clients = [await gateway.connect() for _ in range(2)]
    for client in clients:
        await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.read_response()).status == 200
    third = await gateway.connect()
    assert (await third.read_to_end()).startswith(b"HTTP/1.1 503 ")
    await clients[0].send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await clients[0].read_response()).status == 200
    await clients[0].close()
    await until(lambda: gateway.gateway.connections == 1)
    fourth = await gateway.connect()
    await fourth.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await fourth.read_response()).status == 200
    assert await gateway.metric("gateway_connections_refused_total", reason="max_connections") == 1


async def test_provider_body_above_the_limit_is_413(gateway: RunningGateway) -> None:
    async with gateway.session.post(gateway.url("/token"), data=b"x" * 70_000) as response:
        assert response.status == 413


async def test_body_of_a_refused_request_is_not_taken_for_the_next_one(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    inner = b"GET /public/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    client = await gateway.connect()
    await client.send(
        b"POST /api HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (len(inner) * 2)
    )
    assert (await client.read_response()).status == 401
    await client.send(inner * 2)
    assert await client.read_to_end() == b""
    assert upstream.requests == []
    await client.close()
