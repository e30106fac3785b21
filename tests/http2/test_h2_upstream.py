"""Upstreams of HTTP/2, played by hyper-h2: streams, flow control, and what goes wrong."""

from __future__ import annotations

import asyncio
import io

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from http2.conftest import fetch, upstream_of
from support.deadlines import duration, until, within
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream
from support.servers.raw_upstream import RawUpstream

MIB = 1024 * 1024


# What passes.


async def test_request_and_response_pass(start: StartGateway) -> None:
    async with H2Upstream() as upstream:
        upstream.on_end = lambda request: request.respond(
            b"hello", headers=[(b"x-kind", b"test"), (b"x-request-id", b"echo")]
        )
        gateway = await start("", upstreams=upstream_of(upstream.url))
        token = await gateway.token()
        async with gateway.session.post(
            gateway.url("/api/things?a=%20b"),
            data=b"payload",
            headers={"Authorization": f"Bearer {token}", "X-Own": "1", "Connection": "close"},
        ) as response:
            assert response.status == 200
            assert await response.read() == b"hello"
            assert response.headers["X-Kind"] == "test"
            assert response.headers["X-Request-Id"] != "echo"
        [request] = upstream.requests
        assert request.one(b":method") == b"POST"
        assert request.one(b":path") == b"/api/things?a=%20b"
        assert request.one(b":scheme") == b"http"
        assert request.one(b":authority") == f"127.0.0.1:{gateway.port}".encode()
        assert request.one(b"te") == b"trailers"
        assert request.one(b"x-own") == b"1"
        assert request.one(b"x-client-id") == b"tester"
        assert request.one(b"content-length") == b"7"
        assert request.body == b"payload"
        names = {name for name, _ in request.headers}
        assert not names & {b"connection", b"host", b"transfer-encoding", b"authorization"}
        assert all(name == name.lower() for name in names)
        assert upstream.errors == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PUT"])
@pytest.mark.parametrize("status", [200, 204, 304, 404])
async def test_methods_and_statuses(start: StartGateway, method: str, status: int) -> None:
    def respond(request: H2Request) -> None:
        if method == "HEAD" or status in {204, 304}:
            request.head(status, [(b"content-length", b"2")] * (status == 200), ends=True)
        else:
            request.respond(b"ok", status=status)

    async with H2Upstream(on_end=respond) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        body = b"" if method == "HEAD" or status in {204, 304} else b"ok"
        for _ in range(2):  # the second on the same connection of the client
            assert await fetch(gateway, method) == (status, body)
        assert len(upstream.connections) == 1


async def test_response_without_body_is_framed_for_http1(start: StartGateway) -> None:
    async with H2Upstream(on_end=lambda request: request.head(ends=True)) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        for _ in range(2):
            await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
            response = await client.read_response()
            assert response.header("content-length") == "0"


async def test_interim_responses_pass(start: StartGateway) -> None:
    def respond(request: H2Request) -> None:
        request.head(103, [(b"link", b"</a.css>")])
        request.respond()

    async with H2Upstream(on_end=respond) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.read_response(has_body=False)).status == 103
        assert (await client.read_response()).body == b"ok"


async def test_chunked_body_streams_both_ways(start: StartGateway) -> None:
    def echo(request: H2Request, data: bytes) -> None:
        if not request.connection.requests[request.stream_id].body[len(data) :]:
            request.head()
        request.send(data)

    async with H2Upstream(on_end=lambda request: request.end(), on_data=echo) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        await client.send(
            b"POST /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        async with within():
            assert b"200 OK" in await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.readuntil(b"abc\r\n") == b"3\r\nabc\r\n"
            await client.send(b"4\r\ndefg\r\n")
            assert await client.reader.readuntil(b"defg\r\n") == b"4\r\ndefg\r\n"
            await client.send(b"0\r\n\r\n")
            assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
        [request] = upstream.requests
        assert request.all(b"content-length") == []
        assert request.is_complete


async def test_large_bodies_pass_whole(start: StartGateway) -> None:
    body = bytes(range(256)) * 16 * 1024  # 4 MiB

    async def send_all(request: H2Request) -> None:
        request.head()
        data = request.body
        while data:
            room = request.connection.h2.local_flow_control_window(request.stream_id)
            size = min(room, request.connection.h2.max_outbound_frame_size)
            if not size:
                await asyncio.sleep(0)
                continue
            request.send(data[:size])
            data = data[size:]
        request.end()

    tasks: list[asyncio.Task[None]] = []
    async with H2Upstream() as upstream:
        upstream.on_end = lambda request: tasks.append(asyncio.create_task(send_all(request)))
        gateway = await start("", upstreams=upstream_of(upstream.url))
        assert await fetch(gateway, "POST", data=io.BytesIO(body)) == (200, body)


# Streams and connections.


async def test_requests_at_once_share_one_connection(start: StartGateway) -> None:
    held: list[H2Request] = []
    async with H2Upstream(on_end=held.append) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        calls = [asyncio.create_task(fetch(gateway)) for _ in range(60)]
        await until(lambda: len(held) == 60)
        assert len(upstream.connections) == 1
        assert (
            await gateway.metric("gateway_upstream_requests", upstream="main", state="active") == 60
        )
        for request in held:
            request.respond()
        assert await asyncio.gather(*calls) == [(200, b"ok")] * 60
        assert (
            await gateway.metric("gateway_upstream_connections", upstream="main", state="idle") == 1
        )


async def test_burst_waits_for_one_dial_and_respects_the_limit_of_the_peer(
    start: StartGateway,
) -> None:
    most = 0

    def count(request: H2Request) -> None:
        nonlocal most
        most = max(most, request.connection.h2.open_inbound_streams)
        asyncio.get_running_loop().call_later(0.01, request.respond)

    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 5}
    async with H2Upstream(on_end=count, settings=settings) as upstream:
        gateway = await start(
            "", upstreams=upstream_of(upstream.url, circuit_breaker={"max_connections": 2})
        )
        await fetch(gateway)  # so that the limit is known
        assert await asyncio.gather(*(fetch(gateway) for _ in range(60))) == [(200, b"ok")] * 60
        assert most <= 5
        assert len(upstream.connections) <= 2


async def test_limit_that_is_not_known_yet_is_not_fatal(start: StartGateway) -> None:
    """The first burst is larger than the peer allows, who refuses what is too much."""

    refused = 0

    def respond(request: H2Request) -> None:
        nonlocal refused
        # Each once: how soon the gateway sends them again depends on its speed.
        if request.connection.h2.open_inbound_streams > 5 and refused < 3:
            refused += 1
            request.reset(ErrorCodes.REFUSED_STREAM)
        else:
            asyncio.get_running_loop().call_later(0.01, request.respond)

    async with H2Upstream(on_head=respond, on_end=None) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        results = await asyncio.gather(*(fetch(gateway) for _ in range(8)))
        assert results == [(200, b"ok")] * 8
        assert refused == 3


async def test_target_that_allows_no_streams_is_not_dialled_again_and_again(
    start: StartGateway,
) -> None:
    none = {SettingCodes.MAX_CONCURRENT_STREAMS: 0}
    timeouts = {"connect": duration(2), "response_head": duration(2)}
    async with H2Upstream(settings=none) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url, timeouts=timeouts))
        calls = [asyncio.create_task(fetch(gateway)) for _ in range(10)]
        await until(lambda: len(upstream.connections) == 1)
        # 504 for those whose streams were opened before the target had said so.
        assert {status for status, _ in await asyncio.gather(*calls)} <= {503, 504}
        [connection] = upstream.connections
        # It is used as soon as it allows some.
        call = asyncio.create_task(fetch(gateway))
        connection.do(lambda h2: h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1}))
        assert await call == (200, b"ok")
        assert len(upstream.connections) == 1


async def test_requests_are_balanced_rather_than_connections(start: StartGateway) -> None:
    async with H2Upstream() as one, H2Upstream() as other:
        gateway = await start("", upstreams=upstream_of(one.url, other.url))
        for _ in range(20):
            assert await fetch(gateway) == (200, b"ok")
        assert len(one.requests) == len(other.requests) == 10
        assert len(one.connections) == len(other.connections) == 1


async def test_requests_above_max_requests_are_refused(start: StartGateway) -> None:
    held: list[H2Request] = []
    async with H2Upstream(on_end=held.append) as upstream:
        gateway = await start(
            "", upstreams=upstream_of(upstream.url, circuit_breaker={"max_requests": 3})
        )
        first = asyncio.create_task(fetch(gateway))
        await until(lambda: len(held) == 1)
        calls = [first, *(asyncio.create_task(fetch(gateway)) for _ in range(2))]
        await until(lambda: len(held) == 3)
        assert (await fetch(gateway))[0] == 503
        for request in held:
            request.respond()
        assert [status for status, _ in await asyncio.gather(*calls)] == [200] * 3


async def test_max_requests_as_large_as_max_connections_holds_too(start: StartGateway) -> None:
    held: list[H2Request] = []
    breaker = {"max_requests": 2, "max_connections": 2}
    async with H2Upstream(on_end=held.append) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url, circuit_breaker=breaker))
        first = asyncio.create_task(fetch(gateway))
        await until(lambda: len(held) == 1)
        second = asyncio.create_task(fetch(gateway))
        await until(lambda: len(held) == 2)
        assert (await fetch(gateway))[0] == 503
        for request in held:
            request.respond()
        await asyncio.gather(first, second)


async def test_idle_connection_is_closed_with_a_goodbye(start: StartGateway) -> None:
    async with H2Upstream() as upstream:
        gateway = await start(
            "", upstreams=upstream_of(upstream.url, timeouts={"keepalive": "200ms"})
        )
        assert await fetch(gateway) == (200, b"ok")
        [connection] = upstream.connections
        await until(lambda: connection.transport is None)
        assert connection.goaway_code == 0
        assert await fetch(gateway) == (200, b"ok")


# What goes wrong.


async def test_client_that_leaves_resets_its_stream_only(start: StartGateway) -> None:
    held: list[H2Request] = []
    async with H2Upstream(on_end=held.append) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        other = asyncio.create_task(fetch(gateway))
        await until(lambda: len(held) == 1)
        client = await gateway.connect()
        await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(held) == 2)
        await client.close()
        await until(lambda: held[1].reset_code == ErrorCodes.CANCEL)
        held[0].respond()
        assert await other == (200, b"ok")


async def test_response_before_the_end_of_the_request_ends_it(start: StartGateway) -> None:
    def respond_early(request: H2Request, data: bytes) -> None:
        if request.reset_code is None and len(request.body) == len(data):
            request.respond(b"enough", status=413)

    async with H2Upstream(on_data=respond_early, on_end=None) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        response = await client.read_response()
        assert (response.status, response.body) == (413, b"enough")
        await until(lambda: upstream.requests[0].reset_code == ErrorCodes.NO_ERROR)
        upstream.on_end, upstream.on_data = H2Request.respond, None
        assert await fetch(gateway) == (200, b"ok")
        assert len(upstream.connections) == 1


async def test_stalled_stream_holds_up_no_other(start: StartGateway) -> None:
    """A client that takes nothing has its own window full; others on the connection go on."""
    big = b"x" * (64 * 1024)

    async def flood(request: H2Request) -> None:
        request.head()
        while request.connection.transport is not None:
            room = request.connection.h2.local_flow_control_window(request.stream_id)
            size = min(room, request.connection.h2.max_outbound_frame_size)
            if size:
                request.send(big[:size])
            else:
                stalled.add(request)
            await asyncio.sleep(0)

    stalled: set[H2Request] = set()
    tasks: list[asyncio.Task[None]] = []

    def respond(request: H2Request) -> None:
        if request.one(b":path") == b"/public/big":
            tasks.append(asyncio.create_task(flood(request)))
        else:
            request.respond(big[:10_000])

    async with H2Upstream(on_end=respond) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        clients = [await gateway.connect() for _ in range(4)]
        for client in clients:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(b"GET /public/big HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(stalled) == 4)
        for _ in range(50):
            assert await fetch(gateway) == (200, big[:10_000])
        assert len(upstream.connections) == 1
        for task in tasks:
            task.cancel()
        for client in clients:
            client.writer.transport.abort()
        await until(lambda: all(r.reset_code == ErrorCodes.CANCEL for r in stalled))


async def test_upstream_that_takes_nothing_pauses_its_client_only(start: StartGateway) -> None:
    async with H2Upstream(acknowledges=False, on_end=H2Request.respond) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        await client.send(
            b"POST /public/big HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MIB)
        )
        writing = asyncio.create_task(client.send(b"x" * (64 * MIB)))
        await until(lambda: upstream.received_bytes >= 65_535)
        # The window of the connection is full as well, but a request without a body needs none.
        assert await fetch(gateway) == (200, b"ok")
        assert not writing.done()
        assert upstream.received_bytes < MIB
        upstream.requests[0].reset()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def test_slow_stream_beside_a_lively_one_keeps_the_connection(start: StartGateway) -> None:
    def respond(request: H2Request) -> None:
        if request.one(b":path") != b"/public/slow":
            request.respond()

    async with H2Upstream(on_end=respond) as upstream:
        gateway = await start(
            "", upstreams=upstream_of(upstream.url, timeouts={"response_head": duration(2)})
        )
        slow = asyncio.create_task(fetch(gateway, path="/public/slow"))
        await until(lambda: len(upstream.requests) == 1)
        while not slow.done():
            assert await fetch(gateway) == (200, b"ok")
            await asyncio.sleep(0.02)
        assert (await slow)[0] == 504
        assert len(upstream.connections) == 1


async def test_target_of_http1_is_named_as_such(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start("", upstreams=upstream_of(upstream.url, retries={"attempts": 0}))
    status, body = await fetch(gateway)
    assert status == 502
    assert b"does not speak HTTP/2" in body


async def test_websocket_is_refused_clearly(start: StartGateway) -> None:
    async with H2Upstream() as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        await client.send(
            b"GET /public HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        response = await client.read_response()
        assert response.status == 501
        assert b"upstream_websocket" in response.body
        assert upstream.requests == []


async def test_connections_are_counted_and_evicted(start: StartGateway) -> None:
    """A connection that idles makes room for another endpoint's."""
    breaker = {"max_connections": 1}
    async with H2Upstream() as one, H2Upstream() as other:
        gateway = await start(
            "", upstreams=upstream_of(one.url, other.url, circuit_breaker=breaker)
        )
        for _ in range(4):
            assert await fetch(gateway) == (200, b"ok")
        assert len(one.requests) == len(other.requests) == 2


async def test_drain_lets_streams_finish(start: StartGateway) -> None:
    held: list[H2Request] = []
    async with H2Upstream(on_end=held.append) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        call = asyncio.create_task(fetch(gateway))
        await until(lambda: len(held) == 1)
        draining = asyncio.create_task(gateway.gateway.drain(delay_s=0, grace_s=600))
        await asyncio.sleep(0)
        held[0].respond(b"late")
        assert await call == (200, b"late")
        async with within():
            await draining


async def test_stop_closes_idle_connections_with_a_goodbye(start: StartGateway) -> None:
    async with H2Upstream() as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        assert await fetch(gateway) == (200, b"ok")
        async with within():
            await gateway.gateway.stop()
        [connection] = upstream.connections
        await until(lambda: connection.transport is None)
        assert connection.goaway_code == 0


@pytest.mark.parametrize("te", ["TE: trailers\r\nConnection: TE\r\n", ""])
async def test_trailers_pass_to_http1_where_the_client_takes_them(
    start: StartGateway, te: str
) -> None:
    trailers = [(b"x-sum", b"42"), (b"x-client-id", b"forged"), (b"set-cookie", b"a=b")]
    async with H2Upstream(on_end=lambda request: request.respond(trailers=trailers)) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        await client.send(f"GET /public HTTP/1.1\r\nHost: a\r\n{te}\r\n".encode())
        async with within():
            await client.reader.readuntil(b"ok\r\n0\r\n")
            rest = await client.reader.readuntil(b"\r\n")
            if te:
                assert rest == b"x-sum: 42\r\n"
                rest = await client.reader.readuntil(b"\r\n")
            assert rest == b"\r\n"
