"""Duties of an intermediary that requests rarely ask for, and grammar that no peer enforces."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest
from support.deadlines import until, within
from support.protocols import both_protocols, only_http1
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream

pytestmark = both_protocols

GET = b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
TWO = b"Content-Length: 2\r\n\r\nok"


def head_of(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 ;a=b\r\nok\r\n0 \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0000000000000002\r\nok\r\n0000000000000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + TWO,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        b"HTTP/1.2 200 OK\r\n" + TWO,
    ],
)
async def test_response_that_no_parser_can_misread_passes(
    gateway: RunningGateway, upstream: RawUpstream, response: bytes
) -> None:
    upstream.respond = lambda received: response
    received = await gateway.send(LAST)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"ok" in received.partition(b"\r\n\r\n")[2]
    assert received.lower().count(b"content-length") <= 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok",
        b"HTTP/1.1 999 Odd\r\n" + TWO,
        b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\n" + TWO,
        b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\n" + TWO,
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + TWO,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
    ],
)
async def test_response_that_could_be_misread_is_502_immediately(
    gateway: RunningGateway, upstream: RawUpstream, response: bytes
) -> None:
    async def respond_and_stay(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(response)
        await conversation.reader.read()

    upstream.script = respond_and_stay
    assert (await gateway.send(LAST)).startswith(b"HTTP/1.1 502 ")


@only_http1
async def test_reason_phrase_is_kept(gateway: RunningGateway, upstream: RawUpstream) -> None:
    upstream.respond = lambda received: b"HTTP/1.1 200 Very Good\r\n" + TWO
    assert (await gateway.send(LAST)).startswith(b"HTTP/1.1 200 Very Good\r\n")
    upstream.respond = lambda received: b"HTTP/1.1 200\r\n" + TWO
    assert (await gateway.send(LAST)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_date_is_added_where_the_upstream_sends_none(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    given = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    for date, chunks in ((b"", False), (b"", True), (given, False), (given.lower(), True)):
        framing = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" if chunks else TWO
        response = b"HTTP/1.1 200 OK\r\n" + date + framing
        upstream.respond = lambda received, response=response: response  # type: ignore[misc]
        dates = re.findall(rb"(?im)^date: (.*)\r$", head_of(await gateway.send(LAST)))
        assert len(dates) == 1
        assert (parsedate_to_datetime(dates[0].decode()).year == 1994) is bool(date)


@pytest.mark.parametrize(
    "request_line", [b"OPTIONS * HTTP/1.1", b"OPTIONS http://h HTTP/1.1"], ids=["form", "absolute"]
)
@only_http1
async def test_options_of_the_server_is_responded_to_here(
    gateway: RunningGateway, upstream: RawUpstream, request_line: bytes
) -> None:
    received = await gateway.send(request_line + b"\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nAllow: GET, " in received
    assert not upstream.requests


async def test_max_forwards_is_counted_down_and_ends(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    ask = b"OPTIONS /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\nMax-Forwards: %b\r\n\r\n"
    assert (await gateway.send(ask % b"0")).startswith(b"HTTP/1.1 204 ")
    assert not upstream.requests
    assert (await gateway.send(ask % b"3")).startswith(b"HTTP/1.1 200 ")
    assert upstream.requests[0].all(b"max-forwards") == [b"2"]


@only_http1
async def test_connect_is_501_in_any_form(gateway: RunningGateway) -> None:
    for target in (b"h:443", b"/x", b"[::1]:443", b"h:\xff"):
        received = await gateway.send(b"CONNECT " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 501 ")


@only_http1
async def test_empty_host_is_taken_as_none(gateway: RunningGateway, upstream: RawUpstream) -> None:
    received = await gateway.send(LAST.replace(b"Host: h", b"Host:"))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert upstream.requests[0].all(b"host") == [f"127.0.0.1:{upstream.port}".encode()]
    for twice in (b"Host:\r\nHost:", b"Host:\r\nHost: h", b"Host: h\r\nHost:"):
        assert (await gateway.send(LAST.replace(b"Host: h", twice))).startswith(b"HTTP/1.1 400 ")


async def test_higher_minor_version_is_read_as_http_11(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    client = await gateway.connect()
    for _ in range(2):  # it is kept alive, as by 1.1
        await client.send(GET.replace(b"HTTP/1.1", b"HTTP/1.2"))
        assert (await client.read_response()).status == 200
    assert upstream.requests[0].request_line == b"GET /public HTTP/1.1"


async def test_too_early_is_for_the_client_to_repeat(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    """RFC 8470: the gateway takes no early data itself; a proxy in front of it may have."""
    upstream.respond = lambda received: b"HTTP/1.1 425 Too Early\r\nContent-Length: 0\r\n\r\n"
    response = await gateway.send(
        b"GET /public HTTP/1.1\r\nHost: h\r\nEarly-Data: 1\r\nConnection: close\r\n\r\n"
    )
    assert response.startswith(b"HTTP/1.1 425 ")
    [request] = upstream.requests
    assert request.all(b"early-data") == [b"1"]


@only_http1
async def test_426_keeps_the_protocols_that_it_offers(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n"
        b"Connection: Upgrade\r\n" + TWO
    )
    head = head_of(await gateway.send(LAST))
    assert b"\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n" in head
    assert b"\r\nConnection: Upgrade\r\n" in head
    upstream.respond = lambda received: b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\n" + TWO
    assert b"Upgrade" not in head_of(await gateway.send(LAST))


async def test_idle_connection_is_given_up_before_the_upstream_does(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    async def respond_once(conversation: Conversation, upstream: RawUpstream) -> None:
        while await conversation.read_head():
            await conversation.send(
                b"HTTP/1.1 200 OK\r\nKeep-Alive: max=9, timeout=%d\r\n" % 1 + TWO
            )

    upstream.script = respond_once
    for expected in (1, 2):  # a second less than one second: it is not used again
        assert (await gateway.send(LAST)).startswith(b"HTTP/1.1 200 ")
        assert upstream.connections == expected
    await until(lambda: upstream.open_connections == 0)


async def test_stream_that_the_client_leaves_is_logged_as_it_was_sent(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"half_close": "50ms"}})

    async def stream(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\na\n\n")
        await conversation.reader.read()

    upstream.script = stream
    client = await gateway.connect()
    await client.send(GET)
    async with within():
        await client.reader.readuntil(b"a\n\n")
    await client.close()
    line = (await gateway.logged(1))[0]
    assert (line["status"], line["source"], line["reason"]) == (200, "upstream", "client_closed")
    labels = {"route": "public", "method": "GET", "code": "200", "source": "upstream"}
    assert await gateway.metric("gateway_requests_total", **labels) == 1


async def test_generated_responses_are_logged_with_their_bytes(gateway: RunningGateway) -> None:
    received = await gateway.send(LAST.replace(b"/public", b"/api"))
    line = (await gateway.logged(1))[0]
    assert line["status"] == 401
    assert line["bytes_out"] == len(received.partition(b"\r\n\r\n")[2]) > 0
    await gateway.send(LAST.replace(b"GET /public", b"HEAD /token"))
    assert (await gateway.logged(2))[1].get("bytes_out", 0) == 0


@pytest.mark.parametrize("ends", [True, False])
@only_http1
async def test_head_that_is_too_large_is_logged_with_method_and_path(
    gateway: RunningGateway, ends: bool
) -> None:
    cookie = b"Cookie: " + b"a" * 40_000 + (b"\r\n\r\n" if ends else b"")
    received = await gateway.send(b"GET /public/x?y=1 HTTP/1.1\r\nHost: h\r\n" + cookie)
    assert received.startswith(b"HTTP/1.1 431 ")
    line = (await gateway.logged(1))[0]
    assert (line["method"], line["path"]) == ("GET", "/public/x")


@only_http1
async def test_response_rules_hold_for_a_101(start: StartGateway, upstream: RawUpstream) -> None:
    async def switch(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Server: s\r\nSec-WebSocket-Accept: x\r\n\r\nhello"
        )
        await conversation.reader.read()

    upstream.script = switch
    rules = {"set": {"X-A": "1"}, "remove": ["Server"]}
    route = {"name": "a", "match": {"path": "/"}, "auth": "none", "upstream": "main"}
    gateway = await start(upstream.url, routes=[{**route, "response_headers": rules}])
    client = await gateway.connect()
    await client.send(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket, foo\r\n\r\n"
    )
    async with within():
        received = await client.reader.readuntil(b"hello")
    assert received.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nX-A: 1\r\n" in received
    assert b"Sec-WebSocket-Accept: x" in received
    assert b"Server" not in received


@only_http1
async def test_http_10_client_sees_a_reset_where_a_body_is_cut(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    async def cut(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok")
        await until(lambda: seen)

    seen: list[bytes] = []
    upstream.script = cut
    client = await gateway.connect()
    await client.send(b"GET /public HTTP/1.0\r\nHost: h\r\n\r\n")
    async with within():
        seen.append(await client.reader.readuntil(b"ok"))
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_head_request_describes_the_compressed_response(
    start: StartGateway, upstream: RawUpstream
) -> None:
    fields = b'HTTP/1.1 %b\r\nETag: "abc"\r\nRepr-Digest: x\r\nContent-Type: text/plain\r\n'
    status = b"200 OK"
    upstream.respond = lambda received: (
        fields % status
        + b"Content-Length: 100\r\n\r\n"
        + (b"" if received.request_line.startswith(b"HEAD") else b"a" * 100)
    )
    route = {"name": "a", "match": {"path": "/"}, "auth": "none", "upstream": "main"}
    gateway = await start(upstream.url, routes=[{**route, "compress": {"min_size": 10}}])

    async def fetch(method: bytes) -> dict[str, str]:
        client = await gateway.connect()
        await client.send(method + b" / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
        response = await client.read_response(has_body=method == b"GET")
        varying = ("date", "x-request-id", "content-length")
        return {n.lower(): v for n, v in response.headers if n.lower() not in varying}

    of_get = await fetch(b"GET")
    assert of_get["etag"] == 'W/"abc"'
    assert "repr-digest" not in of_get
    assert await fetch(b"HEAD") == of_get
    status = b"206 Partial Content"
    assert (await fetch(b"GET"))["vary"] == "Accept-Encoding"
