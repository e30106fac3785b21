"""Trailers: they pass where both sides can have them, in all combinations of protocols."""

from __future__ import annotations

import pytest
from http2.conftest import Connect
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream

from gateway.http.h1_body import render_last_chunk

TRAILERS = [(b"grpc-status", b"0"), (b"x-client-id", b"admin"), (b"set-cookie", b"a=b")]
"""The first may pass."""


def respond(request: H2Request) -> None:
    request.respond(b"body", trailers=TRAILERS)


async def test_http2_to_http2_both_ways(start: StartGateway, connect: Connect) -> None:
    async with H2Upstream(on_end=respond) as upstream:
        gateway = await start(
            upstream.url, upstreams={"main": {"targets": [upstream.url], "protocol": "http2"}}
        )
        client = await connect(gateway.port)
        stream = client.begin(method="POST", ends=False)
        client.send(stream, b"request")
        client.send_trailers(stream, [("checksum", "x"), ("x-client-id", "admin")])
        response = await client.finish(stream)
        assert (response.status, response.body) == (200, b"body")
        assert response.trailers == [("grpc-status", "0")]
        [request] = upstream.requests
        assert (request.body, request.trailers) == (b"request", [(b"checksum", b"x")])


@pytest.mark.parametrize(
    ("te", "end"),
    [(b"TE: trailers\r\nConnection: TE\r\n", b"0\r\ngrpc-status: 0\r\n\r\n"), (b"", b"0\r\n\r\n")],
)
async def test_http2_to_a_client_of_http1_that_takes_them(
    start: StartGateway, te: bytes, end: bytes
) -> None:
    async with H2Upstream(on_end=respond) as upstream:
        gateway = await start(
            upstream.url, upstreams={"main": {"targets": [upstream.url], "protocol": "http2"}}
        )
        client = await gateway.connect()
        await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n%b\r\n" % te)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert await client.reader.readexactly(len(b"4\r\nbody\r\n")) == b"4\r\nbody\r\n"
        assert await client.reader.readexactly(len(end)) == end


def test_no_trailer_writes_a_line_of_its_own() -> None:
    odd = ((b"x", b"a\r\ny: z"), (b"x\n", b"a"), (b"ok", b"1"))
    assert render_last_chunk(odd) == b"0\r\nok: 1\r\n\r\n"
