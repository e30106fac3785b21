"""A connection to an upstream that has ended is freed at once, however it ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes
from http2.conftest import upstream_of
from http2.test_h2_upstream_turns import Exchange, Response
from support.deadlines import until
from support.garbage import ask, leaves_none
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream

from gateway.upstream.stream import UpstreamRequestHead


def leaves(request: H2Request) -> None:
    request.respond()
    request.connection.goaway(request.stream_id)
    request.connection.hang_up()


def closes(request: H2Request) -> None:
    request.connection.close()


def breaks_off(request: H2Request) -> None:
    request.head()
    request.send(b"begun")
    request.connection.hang_up()


def refuses(request: H2Request) -> None:
    request.reset(ErrorCodes.REFUSED_STREAM)
    request.connection.hang_up()


def responds_with_nonsense(request: H2Request) -> None:
    request.connection.send_raw(b"HTTP/1.1 200 OK\r\n\r\n" * 20)


def floods(request: H2Request) -> None:
    request.connection.send_raw(
        b"\0\0\x08\x06\0\0\0\0\0" + b"x" * 8 + b"\0\0\0\x04\0\0\0\0\0" * 20_000
    )


@pytest.mark.parametrize(
    "ends", [leaves, closes, breaks_off, refuses, responds_with_nonsense, floods]
)
async def test_upstream_connections_leave_no_garbage(
    start: StartGateway, ends: Callable[[H2Request], None]
) -> None:
    async with H2Upstream(on_end=ends) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url, retries={"attempts": 0}))

        async def visit() -> None:
            await ask(gateway, b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            await until(lambda: not upstream.open_connections)

        await leaves_none(gateway, visit)
        assert len(upstream.connections) >= 4


@pytest.mark.skipif("TEST_COMPILED" in os.environ, reason="takes no such sink")
async def test_request_that_comes_too_late_for_its_connection_leaves_no_timer() -> None:
    """Between the stream and the request, the connection was lost."""
    one, late = Exchange(), Response()
    stream = one.connection.open(late)
    one.connection.lost()
    head = UpstreamRequestHead(b"GET /a HTTP/1.1\r\n", b"h", b"", method="GET")
    stream.send_request(head, ends=True)
    assert one.connection._timer is None
    await asyncio.sleep(0)
    assert late.reasons == ["upstream_unprocessed"]
