"""Upstreams of HTTP/2 that refuse, reset, stall or leave."""

from __future__ import annotations

import asyncio
import io

import pytest
from h2.errors import ErrorCodes
from http2.conftest import fetch, reason_of, retries, upstream_of
from support.deadlines import until, within
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream

MIB = 1024 * 1024


async def test_refused_stream_is_sent_again_with_its_body(start: StartGateway) -> None:
    def refuse_first(request: H2Request) -> None:
        if len(upstream.requests) == 1:
            request.reset(ErrorCodes.REFUSED_STREAM)
        else:
            request.respond(request.body)

    async with H2Upstream(on_end=refuse_first) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url, retries={"attempts": 0}))
        assert await fetch(gateway, "POST", data=b"once") == (200, b"once")
        assert await retries(gateway) == 1


async def test_refused_stream_is_sent_again_while_its_body_comes(start: StartGateway) -> None:
    def refuse_first(request: H2Request, data: bytes) -> None:
        if len(upstream.requests) == 1:
            request.reset(ErrorCodes.REFUSED_STREAM)

    async with H2Upstream(on_data=refuse_first) as upstream:
        upstream.on_end = lambda request: request.respond(request.body)
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        await until(lambda: len(upstream.requests) == 2)
        await client.send(b"def")
        assert (await client.read_response()).body == b"abcdef"


async def test_refused_for_ever_is_not_tried_for_ever(start: StartGateway) -> None:
    async with H2Upstream(
        on_end=lambda request: request.reset(ErrorCodes.REFUSED_STREAM)
    ) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        assert (await fetch(gateway, "POST", data=b"x"))[0] == 502
        assert len(upstream.requests) == 4
        assert await reason_of(gateway) == "upstream_unprocessed"


async def test_large_body_that_was_refused_is_not_sent_again(start: StartGateway) -> None:
    def refuse(request: H2Request, data: bytes) -> None:
        if len(request.body) > 100_000 and request.reset_code is None:
            request.reset_code = 0
            request.reset(ErrorCodes.REFUSED_STREAM)

    async with H2Upstream(on_data=refuse) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        assert (await fetch(gateway, "POST", data=io.BytesIO(b"x" * MIB)))[0] == 502
        assert len(upstream.requests) == 1


async def test_goaway_sends_what_was_not_processed_again(start: StartGateway) -> None:
    """The streams that it names finish; those above, and new ones, go to another connection."""
    held: list[H2Request] = []
    async with H2Upstream(on_end=held.append) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        kept = asyncio.create_task(fetch(gateway))
        await until(lambda: len(held) == 1)
        other = asyncio.create_task(fetch(gateway, "POST", data=b"two"))
        await until(lambda: len(held) == 2)
        held[0].connection.goaway(held[0].stream_id)
        await until(lambda: len(held) == 3)
        assert held[2].connection is not held[0].connection
        assert held[2].body == b"two"
        held[2].respond(b"second")
        assert await other == (200, b"second")
        held[0].respond(b"first")
        assert await kept == (200, b"first")
        await until(lambda: held[0].connection.transport is None)
        assert await retries(gateway) == 1


async def test_reset_before_the_head_is_502(start: StartGateway) -> None:
    async with H2Upstream(on_end=H2Request.reset) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        assert (await fetch(gateway, "POST", data=b"x"))[0] == 502
        assert await reason_of(gateway) == "upstream_reset"
        assert len(upstream.connections[0].requests) == 1


async def test_reset_before_the_head_is_retried_by_the_policy(start: StartGateway) -> None:
    def reset_first(request: H2Request) -> None:
        if len(upstream.requests) == 1:
            request.reset()
        else:
            request.respond()

    async with H2Upstream(on_end=reset_first) as upstream:
        gateway = await start(
            "", upstreams=upstream_of(upstream.url, retries={"retry_on": ["reset"]})
        )
        assert await fetch(gateway) == (200, b"ok")
        assert len(upstream.connections) == 1


async def test_reset_in_the_middle_breaks_the_response_off(start: StartGateway) -> None:
    def begin(request: H2Request) -> None:
        request.head()
        request.send(b"half")

    async with H2Upstream(on_end=begin) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        client = await gateway.connect()
        await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        async with within():
            await client.reader.readuntil(b"half\r\n")
        upstream.requests[0].reset()
        assert await client.read_to_end() == b""
        assert await reason_of(gateway) == "upstream_reset"
        # The connection goes on.
        upstream.on_end = H2Request.respond
        assert await fetch(gateway) == (200, b"ok")
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("sent", [b"1234567", b"123"])
async def test_content_length_that_the_body_belies_is_no_whole_response(
    start: StartGateway, sent: bytes
) -> None:
    def lie(request: H2Request) -> None:
        request.head(headers=[(b"content-length", b"5")])
        request.send(sent, ends=True)

    async with H2Upstream(on_end=lie) as upstream:
        upstream.settings = {}
        gateway = await start("", upstreams=upstream_of(upstream.url))
        raw = await gateway.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not raw.endswith(b"\r\n\r\n" + sent) or b"502" in raw
        assert await reason_of(gateway) == "upstream_protocol"


async def test_connection_lost_with_streams_is_502_for_each(start: StartGateway) -> None:
    held: list[H2Request] = []
    async with H2Upstream(on_end=held.append) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url))
        calls = [asyncio.create_task(fetch(gateway, "POST", data=b"x")) for _ in range(3)]
        await until(lambda: len(held) == 3)
        upstream.connections[0].close()
        assert [status for status, _ in await asyncio.gather(*calls)] == [502] * 3
        assert (
            await gateway.metric("gateway_upstream_requests", upstream="main", state="active") == 0
        )


async def test_silent_upstream_is_504_and_its_connection_is_left(start: StartGateway) -> None:
    async with H2Upstream(on_end=None) as upstream:
        gateway = await start(
            "", upstreams=upstream_of(upstream.url, timeouts={"response_head": "300ms"})
        )
        upstream.on_end = H2Request.respond
        assert await fetch(gateway) == (200, b"ok")
        upstream.on_end = None
        assert (await fetch(gateway))[0] == 504
        assert await reason_of(gateway, 2) == "upstream_response_timeout"
        await until(lambda: upstream.requests[1].reset_code == ErrorCodes.CANCEL)
        upstream.on_end = H2Request.respond
        assert await fetch(gateway) == (200, b"ok")
        assert len(upstream.connections) == 2


async def test_idle_timeout_ends_a_stream_whose_response_stops(start: StartGateway) -> None:
    def begin(request: H2Request) -> None:
        request.head()
        request.send(b"begun")

    async with H2Upstream(on_end=begin) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url, timeouts={"idle": "300ms"}))
        await gateway.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reason_of(gateway) == "stream_idle_timeout"
        await until(lambda: upstream.requests[0].reset_code == ErrorCodes.CANCEL)


@pytest.mark.parametrize(("grpc_status", "count"), [(b"14", 5), (b"5", 15)])
async def test_status_of_grpc_counts_for_outlier_detection(
    start: StartGateway, grpc_status: bytes, count: int
) -> None:
    """UNAVAILABLE as 503 does; NOT_FOUND is a response as others."""
    trailers = [(b"grpc-status", grpc_status)]
    async with (
        H2Upstream(on_end=lambda request: request.respond(trailers=trailers)) as bad,
        H2Upstream(on_end=lambda request: request.respond(trailers=[(b"grpc-status", b"0")])) as ok,
    ):
        gateway = await start("", upstreams=upstream_of(bad.url, ok.url, outlier_detection={}))
        headers = {"Content-Type": "application/grpc"}
        for _ in range(30):
            assert (await fetch(gateway, "POST", data=b"x", headers=headers))[0] == 200
        assert (len(bad.requests), len(ok.requests)) == (count, 30 - count)
        labels = {"upstream": "main", "reason": "consecutive_5xx"}
        ejected = await gateway.metric("gateway_upstream_ejections_total", **labels)
        assert ejected == (grpc_status == b"14")
