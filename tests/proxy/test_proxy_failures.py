"""Upstreams that are away, slow, rude or mendacious, and clients that leave."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.deadlines import duration, until
from support.protocols import all_protocols, only_http1_upstream
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream

pytestmark = all_protocols

GET = b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n"


async def status_and_reason(gateway: RunningGateway, method: str = "GET") -> tuple[int, str]:
    async with gateway.session.request(method, gateway.url("/public")) as response:
        return response.status, (await response.json())["reason"]


def make_main(url: str, **settings: object) -> dict[str, object]:
    return {"main": {"targets": [url], **settings}}


async def test_refused_connection_is_502(start: StartGateway) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gateway = await start(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert await status_and_reason(gateway) == (502, "upstream_connect_failed")


async def test_unknown_host_is_502(start: StartGateway) -> None:
    gateway = await start("http://no-such-host.invalid:80")
    assert await status_and_reason(gateway) == (502, "upstream_connect_failed")


async def test_connect_that_takes_too_long_is_504(start: StartGateway) -> None:
    with socket.socket() as full:
        # A backlog of one, filled: further handshakes are not answered.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}"
        gateway = await start(url, upstreams=make_main(url, timeouts={"connect": "200ms"}))
        assert await status_and_reason(gateway) == (504, "upstream_connect_timeout")
        for filler in fillers:
            filler.close()


async def test_silent_upstream_is_504_and_others_are_not_held_up(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async def say_nothing(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    upstream.script = say_nothing
    async with RawUpstream() as healthy:
        gateway = await start(
            upstream.url,
            upstreams={
                **make_main(upstream.url, timeouts={"response_head": duration(2)}),
                "healthy": {"targets": [healthy.url]},
            },
            routes=[
                {"name": "p", "match": {"path": "/public"}, "upstream": "main", "auth": "none"},
                {"name": "h", "match": {"path": "/healthy"}, "upstream": "healthy", "auth": "none"},
            ],
        )
        slow = asyncio.create_task(status_and_reason(gateway))
        await until(lambda: upstream.open_connections == 1)
        async with gateway.session.get(gateway.url("/healthy")) as response:
            assert response.status == 200
        assert not slow.done()
        assert await slow == (504, "upstream_response_timeout")
        await until(lambda: upstream.open_connections == 0)


@only_http1_upstream
@pytest.mark.parametrize(
    "response",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Large: " + b"x" * 70_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17,
        b"HTTP/1.1 099 What\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_response_that_is_not_http_is_502(
    gateway: RunningGateway, upstream: RawUpstream, response: bytes
) -> None:
    upstream.respond = lambda received: response
    reply = await gateway.send(GET.replace(b"Host: h", b"Host: h\r\nConnection: close"))
    final = reply[reply.rindex(b"HTTP/1.1 ") :]
    assert final.startswith(b"HTTP/1.1 502 ")
    assert b"upstream_protocol" in final


@only_http1_upstream
async def test_bad_chunk_in_one_read_with_its_head_is_a_clean_502(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    assert await status_and_reason(gateway) == (502, "upstream_protocol")


async def test_connection_closed_without_a_response_is_502(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    async def hang_up(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()

    upstream.script = hang_up
    assert await status_and_reason(gateway) == (502, "upstream_silent")
    assert upstream.connections == 1, "a fresh connection is no reason to try again"


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("is_reset", [False, True])
async def test_response_cut_off_in_its_body_never_looks_whole(
    gateway: RunningGateway, upstream: RawUpstream, framing: bytes, is_reset: bool
) -> None:
    async def cut_off(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n3\r\n" % framing)
        await until(lambda: len(seen) > 0)
        if is_reset:
            conversation.reset()

    seen: list[bytes] = []
    upstream.script = cut_off
    client = await gateway.connect()
    await client.send(GET)
    seen.append(await client.reader.readuntil(b"\r\n\r\n"))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.reader.readexactly(10)
    (line,) = await gateway.logged(1)
    assert (line["status"], line["reason"]) == (200, "upstream_closed")
    await client.close()


class DiesWhenReused:
    """Answers the first request of each connection and hangs up on the second."""

    async def __call__(self, conversation: Conversation, upstream: RawUpstream) -> None:
        received = await conversation.read_head()
        assert received is not None
        await conversation.read_body(received)
        upstream.requests.append(received)
        await conversation.send(OK)
        if await conversation.read_head() is not None:
            upstream.broken_bodies += 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_idempotent_request_is_sent_again_when_a_reused_connection_dies(
    gateway: RunningGateway, upstream: RawUpstream, method: str
) -> None:
    upstream.script = DiesWhenReused()
    for _ in range(2):
        async with gateway.session.request(method, gateway.url("/public")) as response:
            assert response.status == 200
    assert upstream.connections == 2


@pytest.mark.parametrize(("method", "body"), [("POST", None), ("PUT", b"x"), ("PATCH", None)])
async def test_request_that_may_have_had_an_effect_is_never_sent_twice(
    gateway: RunningGateway, upstream: RawUpstream, method: str, body: bytes | None
) -> None:
    upstream.script = DiesWhenReused()
    async with gateway.session.get(gateway.url("/public")) as response:
        assert response.status == 200
    async with gateway.session.request(method, gateway.url("/public"), data=body) as response:
        assert response.status == 502
    assert upstream.connections == 1
    assert upstream.broken_bodies == 1


@only_http1_upstream
async def test_idle_upstream_that_speaks_is_not_used_again(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    for _ in range(3):
        async with gateway.session.get(gateway.url("/public")) as response:
            assert await response.text() == "ok"
    assert upstream.connections == 3


@only_http1_upstream
async def test_response_to_head_with_a_body_does_not_poison_the_connection(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with gateway.session.head(gateway.url("/public")) as response:
        assert response.status == 200
    upstream.respond = lambda received: OK
    async with gateway.session.get(gateway.url("/public")) as response:
        assert await response.text() == "ok"
    assert upstream.connections == 2


async def test_upstream_connections_are_reused(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    for _ in range(5):
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 200
    assert upstream.connections == 1
    for state, count in (("idle", 1), ("active", 0)):
        sample = "gateway_upstream_connections"
        assert await gateway.metric(sample, upstream="main", state=state) == count


async def test_unused_upstream_connection_ends(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(
        upstream.url, upstreams=make_main(upstream.url, timeouts={"keepalive": "100ms"})
    )
    async with gateway.session.get(gateway.url("/public")) as response:
        assert response.status == 200
    await until(lambda: upstream.open_connections == 0)


async def test_client_that_leaves_ends_the_exchange_and_is_counted_as_499(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"half_close": "50ms"}})

    async def say_nothing(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    upstream.script = say_nothing
    clients = [await gateway.connect() for _ in range(20)]
    for client in clients:
        await client.send(GET)
    await until(lambda: upstream.open_connections == 20)
    for client in clients:
        await client.close()
    await until(lambda: upstream.open_connections == 0)
    lines = await gateway.logged(20)
    assert {(line["status"], line["reason"]) for line in lines} == {(499, "client_closed")}
    assert await gateway.metric("gateway_inflight_requests") == 0


async def test_client_that_leaves_in_its_upload_breaks_the_upstreams_request_off(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    client = await gateway.connect()
    await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
    await until(lambda: upstream.open_connections == 1)
    await client.close()
    await until(lambda: upstream.broken_bodies == 1)
    assert upstream.requests == []


async def test_response_before_the_end_of_the_upload_reaches_the_client(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    async def refuse_early(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    upstream.script = refuse_early
    client = await gateway.connect()
    await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nabc")
    response = await client.read_response()
    assert (response.status, response.body) == (413, b"big")
    await client.close()


@pytest.mark.parametrize(("attempts", "first"), [(0, 502), (1, 200)])
async def test_target_that_cannot_be_reached_is_passed_over(
    start: StartGateway, upstream: RawUpstream, attempts: int, first: int
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{unused.getsockname()[1]}"
        main = {"targets": [down, upstream.url], "retries": {"attempts": attempts}}
        gateway = await start(upstream.url, upstreams={"main": main})
        statuses = []
        for _ in range(6):
            async with gateway.session.get(gateway.url("/public")) as response:
                statuses.append(response.status)
        assert statuses == [first, 200, 200, 200, 200, 200]
        for target, is_up in ((down, 0), (upstream.url, 1)):
            sample = "gateway_upstream_target_up"
            assert await gateway.metric(sample, upstream="main", target=target) == is_up


async def test_stalled_response_is_given_up(start: StartGateway, upstream: RawUpstream) -> None:
    async def stall(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await conversation.reader.read()

    upstream.script = stall
    gateway = await start(
        upstream.url, upstreams=make_main(upstream.url, timeouts={"idle": "200ms"})
    )
    client = await gateway.connect()
    await client.send(GET)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.read_response()
    (line,) = await gateway.logged(1)
    assert line["reason"] == "stream_idle_timeout"
    await client.close()
