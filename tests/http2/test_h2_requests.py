"""Requests of HTTP/2: every policy of HTTP/1.1 holds, and they mean the same to the upstream."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from http2.conftest import Connect
from hyperframe.frame import GoAwayFrame
from support.clients.h2_client import H2Client
from support.clients.h2_raw import RawH2Client
from support.deadlines import duration, settled, until
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream, Received

CHUNK = b"x" * 65536


async def test_request_and_response(
    client: H2Client, upstream: RawUpstream, gateway: RunningGateway
) -> None:
    response = await client.request("/public/a?b=c", fields=[("x-own", "1"), ("accept", "*/*")])
    assert (response.status, response.body) == (200, b"ok")
    assert dict(response.headers)["content-length"] == "2"
    received = upstream.requests[0]
    assert received.request_line == b"GET /public/a?b=c HTTP/1.1"
    assert received.all(b"host") == [b"h"]
    assert received.all(b"x-own") == [b"1"]
    assert received.all(b"via") == [b"2.0 gateway"]
    line = (await gateway.logged(1))[0]
    assert (line["protocol"], line["status"], line["route"]) == ("HTTP/2.0", 200, "public")
    assert line["request_id"] == dict(response.headers)["x-request-id"]
    assert line["request_id"].encode() == received.all(b"x-request-id")[0]


async def test_many_requests_on_one_connection(
    client: H2Client, upstream: RawUpstream, gateway: RunningGateway
) -> None:
    streams = [client.begin(f"/public/{number}") for number in range(100)]
    for stream in streams:
        assert (await client.finish(stream)).status == 200
    assert await gateway.metric("gateway_http2_connections") == 1
    assert await gateway.metric("gateway_inflight_requests") == 0
    assert len(await gateway.logged(100)) == 100


async def test_tokens_scopes_and_identity(
    client: H2Client, upstream: RawUpstream, gateway: RunningGateway
) -> None:
    token = await gateway.token("app", scope="orders:read")
    denied = await client.request("/api")
    assert denied.status == 401
    assert dict(denied.headers)["www-authenticate"].startswith("Bearer ")
    bearer = [("authorization", f"Bearer {token}"), ("x-client-id", "admin")]
    assert (await client.request("/api", fields=bearer)).status == 200
    assert upstream.requests[-1].all(b"x-client-id") == [b"app"]
    assert b"authorization" not in upstream.requests[-1].names()
    assert (await client.request("/api", fields=bearer)).status == 200
    missing = await client.request("/api/write", method="POST", fields=bearer)
    assert missing.status == 403


async def test_a_token_is_issued(client: H2Client, gateway: RunningGateway) -> None:
    await gateway.create_client("app")
    body = b"grant_type=client_credentials&client_id=app&client_secret=secret"
    form = [("content-type", "application/x-www-form-urlencoded")]
    response = await client.request("/token", body, method="POST", fields=form)
    assert response.status == 200
    assert b"access_token" in response.body


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "length unknown"])
async def test_a_body_arrives_whole(
    client: H2Client, upstream: RawUpstream, *, length: bool
) -> None:
    body = b"0123456789" * 30_000
    fields = [("content-length", str(len(body)))] if length else []
    response = await client.request("/public", body, method="PUT", fields=fields)
    assert response.status == 200
    received = upstream.requests[0]
    assert received.body == body
    assert bool(received.all(b"content-length")) == length
    assert bool(received.all(b"transfer-encoding")) != length


async def test_an_empty_data_frame_ends_a_body(client: H2Client, upstream: RawUpstream) -> None:
    stream = client.begin(method="POST", ends=False)
    client.send(stream, b"", ends=True)
    assert (await client.finish(stream)).status == 200
    assert upstream.requests[0].body == b""


async def test_cookie_crumbs_are_joined(client: H2Client, upstream: RawUpstream) -> None:
    await client.request(fields=[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")])
    assert upstream.requests[0].all(b"cookie") == [b"a=1; b=2; c=3"]


async def test_head_and_bodiless_responses(client: H2Client, upstream: RawUpstream) -> None:
    def respond(received: Received) -> bytes:
        if received.request_line.startswith(b"HEAD"):
            return b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
        return b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"

    upstream.respond = respond
    response = await client.request(method="HEAD")
    assert (response.status, response.body, response.has_ended) == (200, b"", True)
    assert dict(response.headers)["content-length"] == "7"
    response = await client.request()
    assert (response.status, response.body, response.has_ended) == (304, b"", True)


async def test_connection_fields_of_the_upstream_do_not_pass(
    client: H2Client, upstream: RawUpstream
) -> None:
    upstream.respond = lambda _: (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nX-Hop: 1\r\n"
        b"X-Mixed: Case\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    response = await client.request()
    names = {name for name, _ in response.headers}
    assert names == {":status", "date", "x-mixed", "x-request-id"}
    assert response.body == b"ok"


async def test_a_window_that_stays_shut_holds_the_upstream_back(
    client: H2Client, upstream: RawUpstream
) -> None:
    sent = 0
    total = 1000 * len(CHUNK)  # twice of what the buffers of a socket may grow to

    async def send_much(conversation: Conversation, upstream: RawUpstream) -> None:
        nonlocal sent
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await conversation.send(CHUNK)
            sent += len(CHUNK)

    upstream.script = send_much
    client.opens_windows = False
    stream = client.begin()
    held = await settled(lambda: sent)
    assert held < total / 2
    # Another request is served meanwhile: the connection's window has room for it.
    client.core.increment_flow_control_window(65_535)
    client.flush()
    assert (await client.request("/nowhere")).status == 404
    client.opens_windows = True
    client.core.increment_flow_control_window(total)
    client.core.increment_flow_control_window(total, stream)
    client.flush()
    assert len((await client.finish(stream)).body) == total


async def test_slow_upstream_holds_the_client_back_and_no_other_stream(
    client: H2Client, upstream: RawUpstream
) -> None:
    may_read = asyncio.Event()
    total = 1000 * len(CHUNK)
    received = 0

    async def read_late(conversation: Conversation, upstream: RawUpstream) -> None:
        nonlocal received
        head = await conversation.read_head()
        assert head is not None
        if not head.request_line.startswith(b"PUT"):
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        await may_read.wait()
        while received < total:
            received += len(await conversation.reader.read(1 << 20))
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream.script = read_late
    stream = client.begin(method="PUT", ends=False, fields=[("content-length", str(total))])
    upload = asyncio.create_task(client.upload(stream, b"x" * total))
    await settled(lambda: client.core.local_flow_control_window(stream))
    assert client.core.local_flow_control_window(stream) < 16_384
    assert not upload.done()
    assert (await client.request()).status == 200
    may_read.set()
    await upload
    assert (await client.finish(stream)).body == b"ok"
    assert received == total


async def test_a_reset_cancels_the_work_at_the_upstream(
    client: H2Client, upstream: RawUpstream, gateway: RunningGateway
) -> None:
    async def never(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.reader.read()

    upstream.script = never
    stream = client.begin()
    await until(lambda: upstream.open_connections == 1)
    client.reset(stream)
    await until(lambda: upstream.open_connections == 0)
    line = (await gateway.logged(1))[0]
    assert (line["status"], line["reason"]) == (499, "client_closed")
    assert await gateway.metric("gateway_inflight_requests") == 0
    assert await gateway.metric("gateway_http2_resets_total", by="client") == 1


async def test_a_connection_that_is_lost_cancels_every_stream(
    client: H2Client, upstream: RawUpstream, gateway: RunningGateway
) -> None:
    async def never(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.reader.read()

    upstream.script = never
    for _ in range(5):
        client.begin()
    await until(lambda: upstream.open_connections == 5)
    client.writer.transport.abort()
    await until(lambda: upstream.open_connections == 0)
    assert {line["status"] for line in await gateway.logged(5)} == {499}
    assert await gateway.metric("gateway_http2_connections") == 0


async def test_a_response_that_breaks_off_resets_its_stream_only(
    client: H2Client, upstream: RawUpstream, gateway: RunningGateway
) -> None:
    async def break_off(conversation: Conversation, upstream: RawUpstream) -> None:
        head = await conversation.read_head()
        assert head is not None
        if b"/cut" in head.request_line:
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            await until(lambda: bool(client.responses[1].body))
            conversation.reset()
        else:
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream.script = break_off
    response = await client.request("/public/cut")
    assert (response.status, response.body, response.reset) == (200, b"half", 2)
    assert (await client.request()).body == b"ok"
    assert (await gateway.logged(2))[0]["reason"] == "upstream_closed"


async def test_a_response_before_the_end_of_the_body(
    client: H2Client, upstream: RawUpstream
) -> None:
    stream = client.begin("/api", method="POST", ends=False)
    client.send(stream, b"x" * 1000)
    response = await client.finish(stream)
    assert response.status == 401
    await until(lambda: response.reset is not None)
    assert response.reset == 0
    assert (await client.request()).status == 200


async def test_trailers_of_a_request_do_not_disturb_http1_upstreams(
    client: H2Client, upstream: RawUpstream
) -> None:
    stream = client.begin(method="POST", ends=False)
    client.send(stream, b"body")
    client.send_trailers(stream, [("checksum", "x")])
    assert (await client.finish(stream)).status == 200
    assert upstream.requests[0].body == b"body"


async def test_slow_body_is_408(
    start: StartGateway, upstream: RawUpstream, connect: Connect
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"body": "200ms"}})
    client = await connect(gateway.port)
    stream = client.begin(method="POST", ends=False)
    client.send(stream, b"x")
    assert (await client.finish(stream)).status == 408
    assert (await client.request()).status == 200


async def test_idle_connections_end_with_goaway(
    start: StartGateway, upstream: RawUpstream, connect: Connect
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"keepalive": "200ms"}})
    client = await connect(gateway.port)
    assert (await client.request()).status == 200
    assert await client.closed() == [(1, 0)]


async def test_pings_do_not_keep_a_connection(
    start: StartGateway, upstream: RawUpstream, connect: Connect
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"keepalive": "300ms"}})
    client = await connect(gateway.port)
    while not client.goaways:
        client.core.ping(b"12345678")
        client.flush()
        await asyncio.sleep(0.005)
    assert client.goaways == [(0, 0)]


async def test_a_connection_ages(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(upstream.url, listen={"http2": {"max_age": duration(0.2)}})
    client = await RawH2Client.connect(gateway.port)
    goaways = [frame for frame in await client.frames() if isinstance(frame, GoAwayFrame)]
    assert [frame.last_stream_id for frame in goaways] == [2**31 - 1, 0]
    await client.close()


async def test_off_means_http1_only(
    start: StartGateway, upstream: RawUpstream, connect: Connect
) -> None:
    gateway = await start(upstream.url, listen={"http2": {"enabled": False}})
    received = await gateway.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 ")


async def test_the_preface_may_come_in_pieces(gateway: RunningGateway) -> None:
    client = await gateway.connect()
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0":
        await client.send(bytes((byte,)))
    frame = await client.reader.readexactly(9)
    assert frame[3] == 4  # SETTINGS


async def test_a_preface_after_a_request_is_no_preface(gateway: RunningGateway) -> None:
    received = await gateway.send(
        b"GET /public HTTP/1.1\r\nHost: h\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    )
    assert b"HTTP/1.1 400 " in received


async def test_an_upgrade_to_h2c_is_not_taken(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    client = await gateway.connect()
    await client.send(
        b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    assert (await client.read_response()).status == 200
    assert not {b"upgrade", b"http2-settings"} & set(upstream.requests[0].names())


async def test_unix_socket_and_proxy_header(
    start: StartGateway, upstream: RawUpstream, connect: Connect, tmp_path: Path
) -> None:
    gateway = await start(
        upstream.url,
        listen={
            "unix": {"path": str(tmp_path / "s")},
            "proxy_protocol": {"trusted_proxies": ["127.0.0.1/32"]},
        },
    )
    local = await connect(path=str(tmp_path / "s"))
    assert (await local.request()).status == 200
    header = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 8080\r\n"
    client = await connect(gateway.port, first=header)
    assert (await client.request()).status == 200
    assert upstream.requests[-1].all(b"x-forwarded-for") == [b"203.0.113.9"]
