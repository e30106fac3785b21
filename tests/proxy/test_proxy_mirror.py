"""A mirror gets copies, and can neither slow nor fail the requests, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.deadlines import until, within
from support.protocols import each_protocol, only_http1_upstream
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream, Received

from gateway.proxy import mirror as mirror_module
from gateway.proxy.mirror import shadow_authority

pytestmark = each_protocol

CHUNKED = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def mirror() -> AsyncIterator[RawUpstream]:
    """The upstream that gets the copies."""
    async with RawUpstream() as running:
        yield running


async def start_mirrored(
    start: StartGateway, upstream: RawUpstream, mirror_url: str, **keys: Any
) -> RunningGateway:
    return await start(
        upstream.url,
        upstreams={"main": {"targets": [upstream.url]}, "copy": {"targets": [mirror_url]}},
        routes=[
            {
                "name": "a", "match": {"path": "/a"}, "auth": "none", "upstream": "main",
                "mirror": {"upstream": "copy"} | keys,
            }
        ],
    )  # fmt: skip


async def results(gateway: RunningGateway) -> tuple[float, float, float]:
    """Copies that were sent, dropped and failed."""
    sent, dropped, failed = [
        await gateway.metric("gateway_mirror_requests_total", route="a", result=result)
        for result in ("sent", "dropped", "failed")
    ]
    return sent, dropped, failed


async def count(gateway: RunningGateway, expected: tuple[float, float, float]) -> None:
    """Wait for these counts."""
    async with within():
        while await results(gateway) != expected:
            await asyncio.sleep(0.02)


async def test_mirror_gets_the_same_request_marked_as_a_shadow_and_its_response_goes_nowhere(
    start: StartGateway, upstream: RawUpstream, mirror: RawUpstream
) -> None:
    mirror.respond = lambda received: b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nevil"
    gateway = await start_mirrored(start, upstream, mirror.url)
    client = await gateway.connect()
    await client.send(b"POST /a/x?y HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\n\r\nhello")
    assert (await client.read_response()).body == b"ok"
    await client.send(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (await client.read_response()).body == b"ok"
    await client.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.read_response()).body == b"ok"
    await count(gateway, (3, 0, 0))
    copies = sorted(mirror.requests, key=lambda received: received.request_line)
    originals = sorted(upstream.requests, key=lambda received: received.request_line)
    for copy, original in zip(copies, originals, strict=True):
        assert (copy.request_line, copy.body) == (original.request_line, original.body)
        (host,) = original.all(b"Host")
        assert copy.all(b"Host") == [b"h-shadow" + host[1:]]
        rest = [field for field in copy.headers if field[0].lower() != b"host"]
        assert rest == [field for field in original.headers if field[0].lower() != b"host"]


async def test_mirror_that_is_unavailable_or_silent_is_not_noticed(
    start: StartGateway, upstream: RawUpstream, mirror: RawUpstream
) -> None:
    async def silent(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    mirror.script = silent
    gateway = await start_mirrored(start, upstream, mirror.url, max_in_flight=2)
    client = await gateway.connect()
    for _ in range(5):
        await client.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.read_response()).status == 200
    assert await results(gateway) == (0, 3, 0)
    away = await start_mirrored(start, upstream, "http://127.0.0.1:9")
    client = await away.connect()
    await client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
    assert (await client.read_response()).status == 200
    await count(away, (0, 0, 1))


@only_http1_upstream
async def test_mirror_that_does_not_take_the_body_is_given_up_in_bounded_memory(
    start: StartGateway, upstream: RawUpstream, mirror: RawUpstream
) -> None:
    async def stuck(conversation: Conversation, upstream: RawUpstream) -> None:
        await asyncio.Event().wait()

    mirror.script = stuck
    gateway = await start_mirrored(start, upstream, mirror.url)
    client = await gateway.connect()
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with within():
        await client.send(CHUNKED)
        for _ in range(400):
            await client.send(piece)
        await client.send(b"0\r\n\r\n")
    assert (await client.read_response()).status == 200
    assert len(upstream.requests[0].body) == 400 * 65536
    await count(gateway, (0, 1, 0))


async def test_body_that_breaks_off_is_never_whole_for_the_mirror(
    start: StartGateway, upstream: RawUpstream, mirror: RawUpstream
) -> None:
    heads: list[Received] = []

    async def script(conversation: Conversation, upstream: RawUpstream) -> None:
        received = await conversation.read_head()
        assert received is not None
        heads.append(received)
        await conversation.read_body(received)

    mirror.script = script
    gateway = await start_mirrored(start, upstream, mirror.url)
    client = await gateway.connect()
    await client.send(CHUNKED + b"3\r\nabc\r\n")
    await until(lambda: len(heads) == 1)
    await client.close()
    await until(lambda: mirror.broken_bodies == 1)
    await count(gateway, (0, 0, 1))


async def test_mirror_that_never_responds_is_left_some_time_after_the_response(
    start: StartGateway, upstream: RawUpstream, mirror: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    mirror.script = silent
    monkeypatch.setattr(mirror_module, "LINGER_S", 0.05)
    gateway = await start_mirrored(start, upstream, mirror.url)
    client = await gateway.connect()
    await client.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.read_response()).status == 200
    await count(gateway, (0, 1, 0))
    await until(lambda: mirror.open_connections == 0)


async def test_share_of_nothing_is_no_copy(
    start: StartGateway, upstream: RawUpstream, mirror: RawUpstream
) -> None:
    gateway = await start_mirrored(start, upstream, mirror.url, percent=0)
    client = await gateway.connect()
    await client.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.read_response()).status == 200
    assert await results(gateway) == (0, 0, 0)
    assert mirror.connections == 0


@pytest.mark.parametrize(
    ("host", "shadow"),
    [
        (b"a.example", b"a.example-shadow"), (b"a.example:80", b"a.example-shadow:80"),
        (b"[::1]", b"[::1]-shadow"), (b"[::1]:80", b"[::1]-shadow:80"),
    ],
)  # fmt: skip
def test_host_of_a_shadow_says_so_before_the_port(host: bytes, shadow: bytes) -> None:
    assert shadow_authority(host) == shadow
