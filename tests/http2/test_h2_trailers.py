"""Trailers: they pass where both sides can have them, in all combinations of protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from http2.conftest import Connect
from support.config_file import route
from support.deadlines import until
from support.running_gateway import RawClient, RunningGateway, StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream
from support.servers.raw_upstream import RawUpstream, Received

from gateway.http.h1_body import (
    MAX_TRAILERS,
    BodyFramingError,
    ChunkedBody,
    render_last_chunk,
    trailers_of,
)

TRAILERS = [
    (b"grpc-status", b"0"), (b"x-client-id", b"admin"), (b"set-cookie", b"a=b"),
    (b"x-internal", b"1"),
]  # fmt: skip
"""The first may pass, and the last where the route does not remove it."""
LINES = b"".join(
    b"%b: %b\r\n" % (name.title(), value) for name, value in [*TRAILERS, (b"content-length", b"9")]
)
TE = b"TE: trailers\r\nConnection: TE\r\n"


def route_that_removes() -> dict[str, Any]:
    return route("main", "main") | {
        "match": {"path": "/public"}, "auth": "none",
        "request_headers": {"remove": ["X-Internal"]},
        "response_headers": {"remove": ["X-Internal"]},
    }  # fmt: skip


def respond_h2(request: H2Request) -> None:
    request.respond(b"body", trailers=TRAILERS)


def respond_h1(received: Received) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n"
    return head + b"4\r\nbody\r\n0\r\n%b\r\n" % LINES


@pytest.fixture(params=["http/1.1", "h2"])
async def with_trailers(
    request: pytest.FixtureRequest, start: StartGateway
) -> AsyncIterator[RunningGateway]:
    """In front of an upstream of either protocol whose responses have trailers."""
    how: dict[str, Any] = {"routes": [route_that_removes()]}
    if request.param == "h2":
        async with H2Upstream(on_end=respond_h2) as upstream:
            how["upstreams"] = {"main": {"targets": [upstream.url], "protocol": "http2"}}
            yield await start(upstream.url, **how)
    else:
        async with RawUpstream() as plain:
            plain.respond = respond_h1
            yield await start(plain.url, **how)


async def test_of_a_response_to_a_client_of_http2(
    with_trailers: RunningGateway, connect: Connect
) -> None:
    client = await connect(with_trailers.port)
    for _ in range(2):
        response = await client.request()
        assert (response.status, response.body) == (200, b"body")
        assert response.trailers == [("grpc-status", "0")]


async def read_to_the_end(client: RawClient, *, te: bytes) -> bytes:
    await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n%b\r\n" % te)
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Trailer:" not in head
    assert await client.reader.readuntil(b"body\r\n") == b"4\r\nbody\r\n"
    return await client.reader.readuntil(b"\r\n\r\n")


async def test_of_a_response_to_a_client_of_http1_that_takes_them(
    with_trailers: RunningGateway,
) -> None:
    client = await with_trailers.connect()
    for _ in range(2):
        end = await read_to_the_end(client, te=TE)
        assert end.lower() == b"0\r\ngrpc-status: 0\r\n\r\n"
        assert await read_to_the_end(client, te=b"") == b"0\r\n\r\n"
        assert await read_to_the_end(client, te=b"TE: gzip;q=1\r\n") == b"0\r\n\r\n"


@pytest.mark.parametrize(("te", "passed_on"), [(TE, True), (b"TE: gzip\r\n", False), (b"", False)])
async def test_upstream_of_http1_is_asked_for_them(
    start: StartGateway, upstream: RawUpstream, connect: Connect, te: bytes, *, passed_on: bool
) -> None:
    gateway = await start(upstream.url)
    client = await gateway.connect()
    for _ in range(2):
        await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n%b\r\n" % te)
        assert (await client.read_response()).status == 200
    assert upstream.connections == 1
    for received in upstream.requests:
        assert received.all(b"te") == ([b"trailers"] if passed_on else [])
        assert received.all(b"connection") == ([b"TE"] if passed_on else [])
    multiplexed = await connect(gateway.port)
    fields = [("te", "trailers")] if passed_on else []
    assert (await multiplexed.request(fields=fields)).status == 200
    assert upstream.requests[-1].all(b"te") == ([b"trailers"] if passed_on else [])


async def upload(gateway: RunningGateway, connect: Connect, version: str) -> None:
    """A body, and trailers behind it."""
    if version == "h2":
        client = await connect(gateway.port)
        stream = client.begin(method="POST", ends=False)
        client.send(stream, b"request")
        client.send_trailers(stream, [("checksum", "x"), *((a.decode(), b.decode()) for a, b in
                                                          TRAILERS[1:])])  # fmt: skip
        assert (await client.finish(stream)).status == 200
    else:
        plain = await gateway.connect()
        await plain.send(
            b"POST /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"7\r\nrequest\r\n0\r\nChecksum: x\r\n%b\r\n" % LINES.partition(b"\r\n")[2]
        )
        assert (await plain.read_response()).status == 200


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
async def test_of_a_request_to_an_upstream_of_http2(
    start: StartGateway, connect: Connect, version: str
) -> None:
    async with H2Upstream() as upstream, H2Upstream() as mirror:
        gateway = await start(
            upstream.url,
            upstreams={
                "main": {"targets": [upstream.url], "protocol": "http2"},
                "mirror": {"targets": [mirror.url], "protocol": "http2"},
            },
            routes=[route_that_removes() | {"mirror": {"upstream": "mirror"}}],
        )
        await upload(gateway, connect, version)
        await until(lambda: mirror.requests and mirror.requests[0].is_complete)
        for [request] in (upstream.requests, mirror.requests):
            assert (request.body, request.trailers) == (b"request", [(b"checksum", b"x")])


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
async def test_of_a_request_do_not_reach_an_upstream_of_http1(
    start: StartGateway, upstream: RawUpstream, connect: Connect, version: str
) -> None:
    gateway = await start(upstream.url)
    await upload(gateway, connect, version)
    [received] = upstream.requests
    assert received.body == b"request"
    assert not {b"checksum", b"x-internal", b"x-client-id"} & set(received.names())
    assert received.trailers == b""


async def test_of_a_client_never_name_its_certificate(start: StartGateway) -> None:
    """The field by which a trusted proxy names it, in any spelling."""
    async with H2Upstream() as upstream:
        gateway = await start(
            upstream.url,
            upstreams={"main": {"targets": [upstream.url], "protocol": "http2"}},
            trusted_proxies=["10.0.0.0/8"],
            provider={"client_certificate_header": "X-Cert"},
        )
        client = await gateway.connect()
        await client.send(
            b"POST /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\nX-Cert: a\r\nx_cert: b\r\nok: 1\r\n\r\n"
        )
        assert (await client.read_response()).status == 200
        assert upstream.requests[0].trailers == [(b"ok", b"1")]


def test_more_of_them_than_fields_of_a_head_are_refused() -> None:
    body = ChunkedBody()
    body.feed(b"0\r\n" + b"a: b\r\n" * MAX_TRAILERS)
    with pytest.raises(BodyFramingError):
        body.feed(b"a: b\r\n")


def test_those_of_a_body_in_chunks_are_kept_in_order() -> None:
    body = ChunkedBody()
    for byte in b"1\r\nx\r\n0\r\nA-B: c \r\na-b: d\r\nHost: h\r\nX_Client_Id: x\r\n\r\n":
        body.feed(bytes((byte,)))
    assert body.is_complete
    assert trailers_of(body) == ((b"a-b", b"c"), (b"a-b", b"d"))


def test_no_trailer_writes_a_line_of_its_own() -> None:
    odd = ((b"x", b"a\r\ny: z"), (b"x\n", b"a"), (b"ok", b"1"))
    assert render_last_chunk(odd) == b"0\r\nok: 1\r\n\r\n"
