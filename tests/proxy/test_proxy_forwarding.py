"""What is forwarded, and how: methods, framing, heads, on real sockets byte by byte."""

from __future__ import annotations

import asyncio

import pytest
from support.protocols import all_protocols, only_http1
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream, Received

pytestmark = all_protocols

GET = b"GET /public/x HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE"]
)
async def test_every_method_is_forwarded(
    gateway: RunningGateway, upstream: RawUpstream, method: str
) -> None:
    async with gateway.session.request(method, gateway.url("/public/x")) as response:
        assert response.status == 200
    assert upstream.requests[0].request_line == f"{method} /public/x HTTP/1.1".encode()


async def test_head_has_the_length_and_no_body_and_the_connections_stay(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        if received.request_line.startswith(b"HEAD")
        else b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    )
    client = await gateway.connect()
    for _ in range(2):
        await client.send(GET.replace(b"GET", b"HEAD"))
        response = await client.read_response(has_body=False)
        assert response.header("content-length") == "5"
        await client.send(GET)
        assert (await client.read_response()).body == b"hello"
    assert upstream.connections == 1
    await client.close()


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_bodiless_response_ends_with_its_head(
    gateway: RunningGateway, upstream: RawUpstream, status: bytes
) -> None:
    upstream.respond = lambda received: b"HTTP/1.1 %b\r\nETag: x\r\n\r\n" % status
    client = await gateway.connect()
    for _ in range(2):
        await client.send(GET)
        response = await client.read_response(has_body=False)
        assert response.status == int(status[:3])
        assert response.header("transfer-encoding") is None
    assert upstream.connections == 1
    await client.close()


async def test_chunked_response_is_rechunked_without_trailers_and_extensions(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    response = await gateway.send(GET.replace(b"Host: h", b"Host: h\r\nConnection: close"))
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Trailer" not in head
    assert body == b"5\r\nabcde\r\n0\r\n\r\n"


async def test_response_that_ends_with_the_connection_is_chunked_for_the_client(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    async def close_after(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nServer: old\r\n\r\nall of it")

    upstream.script = close_after
    client = await gateway.connect()
    for _ in range(2):
        await client.send(GET)
        response = await client.read_response()
        assert (response.header("transfer-encoding"), response.body) == ("chunked", b"all of it")
    await client.close()


@only_http1
async def test_http_10_client_gets_a_body_that_ends_with_the_connection(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    response = await gateway.send(b"GET /public HTTP/1.0\r\n\r\n")
    head, _, body = response.partition(b"\r\n\r\n")
    assert body == b"abc"
    assert b"Connection: close" in head
    assert b"chunked" not in head
    assert upstream.requests[0].all(b"host") == [upstream.url.removeprefix("http://").encode()]


@only_http1
async def test_http_10_client_that_asks_for_it_is_kept(gateway: RunningGateway) -> None:
    client = await gateway.connect()
    for _ in range(2):
        await client.send(b"GET /public HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
        response = await client.read_response()
        assert (response.header("connection"), response.body) == ("keep-alive", b"ok")
    await client.close()
    both = b"GET /public HTTP/1.0\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n"
    assert b"\r\nConnection: close\r\n" in await gateway.send(both)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5", b"hello"),
        (b"Content-Length: 0", b""),
        (b"Transfer-Encoding: chunked", b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
    ],
)
async def test_request_body_is_reframed_wherever_the_wire_splits_it(
    gateway: RunningGateway,
    upstream: RawUpstream,
    framing: bytes,
    body: bytes,
    upstream_protocol: str,
) -> None:
    request = b"POST /public HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n%b" % (framing, body)
    splits = range(1, len(request))
    for split in splits:
        client = await gateway.connect()
        await client.send(request[:split])
        # The second part must come with another read, or the split is not one.
        await asyncio.sleep(0.001)
        await client.send(request[split:])
        assert (await client.read_response()).body == b"ok"
        await client.close()
    assert len(upstream.requests) == len(splits)
    for received in upstream.requests:
        assert received.body in {b"", b"hello"}
        assert len(received.body) == (0 if b"0" in body[:1] or not body else 5)
        assert b"x-trailer" not in received.names()
        framings = received.all(b"content-length") + received.all(b"transfer-encoding")
        # The head of a request of HTTP/2 may be its end.
        assert len(framings) == 1 or (upstream_protocol, received.body) == ("h2", b"")


async def test_trailer_of_one_request_never_becomes_a_field_of_the_next(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    client = await gateway.connect()
    await client.send(
        b"POST /public HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nX-Trailer: 1\r\nAuthorization: Bearer x\r\n\r\n" + GET
    )
    for _ in range(2):
        assert (await client.read_response()).status == 200
    await client.close()
    assert len(upstream.requests) == 2
    for received in upstream.requests:
        assert not {b"x-trailer", b"authorization"} & set(received.names())


async def test_pipelined_requests_are_served_in_order(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    def echo_path(received: Received) -> bytes:
        path = received.request_line.split(b" ")[1]
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path)

    upstream.respond = echo_path
    client = await gateway.connect()
    paths = [b"/public/%d" % number for number in range(50)]
    await client.send(b"".join(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path for path in paths))
    assert [(await client.read_response()).body for _ in paths] == paths
    await client.close()


async def test_interim_responses_pass_but_for_100(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    response = await gateway.send(GET.replace(b"Host: h", b"Host: h\r\nConnection: close"))
    interim, _, final = response.lower().partition(b"\r\n\r\n")
    assert interim == b"http/1.1 103 early hints\r\nlink: </a>"
    assert final.startswith(b"http/1.1 200 ok\r\n")


async def test_client_that_expects_100_gets_it_after_auth_and_not_before(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    request = b"POST /%b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    client = await gateway.connect()
    await client.send(request % b"public")
    assert (await client.read_response(has_body=False)).status == 100
    await client.send(b"hello")
    assert (await client.read_response()).status == 200
    assert upstream.requests[0].body == b"hello"
    assert b"expect" not in upstream.requests[0].names()
    await client.send(request % b"api")
    refused = await client.read_response()
    assert (refused.status, refused.header("connection")) == (401, "close")
    await client.close()


async def test_strip_prefix_rewrites_the_path_and_nothing_else(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[
            {
                "name": "strip", "match": {"path": "/v1/pub"}, "upstream": "main", "auth": "none",
                "rewrite": {"strip_prefix": "/v1"},
            }
        ],
    )  # fmt: skip
    for path in ("/v1/pub", "/v1/pub/a%20b?c=%2Fv1/pub"):
        async with gateway.session.get(gateway.url(path)) as response:
            assert response.status == 200
    assert [received.request_line.split(b" ")[1] for received in upstream.requests] == [
        b"/pub",
        b"/pub/a%20b?c=%2Fv1/pub",
    ]


async def test_forwarding_fields_are_the_gateways_own(
    gateway: RunningGateway, upstream: RawUpstream, client_protocol: str
) -> None:
    await gateway.send(
        b"GET /public HTTP/1.1\r\nHost: api.example:8080\r\nConnection: close\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n"
    )
    (received,) = upstream.requests
    assert received.all(b"host") == [b"api.example:8080"]
    assert received.all(b"x-forwarded-for") == [b"127.0.0.1"]
    assert received.all(b"x-forwarded-proto") == [b"http"]
    assert received.all(b"x-forwarded-host") == [b"api.example:8080"]
    assert received.all(b"forwarded") == [b'for=127.0.0.1;host="api.example:8080";proto=http']
    assert received.all(b"via") == [b"2.0 gateway" if client_protocol == "h2" else b"1.1 gateway"]
    assert received.all(b"connection") == []


async def test_trusted_proxy_is_believed(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(upstream.url, trusted_proxies=["127.0.0.0/8"])
    await gateway.send(
        b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Request-Id: given\r\n"
        b"X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\r\n"
    )
    (received,) = upstream.requests
    assert received.all(b"x-forwarded-for") == [b"6.6.6.6, 192.0.2.1, 127.0.0.1"]
    assert received.all(b"x-forwarded-proto") == [b"https"]
    assert received.all(b"x-request-id") == [b"given"]
    (line,) = await gateway.logged(1)
    assert (line["client"], line["request_id"]) == ("192.0.2.1", "given")


async def test_absolute_form_is_forwarded_in_origin_form_and_its_authority_wins(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    await gateway.send(
        b"GET http://real.example/public/x?y HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"
    )
    (received,) = upstream.requests
    assert received.request_line == b"GET /public/x?y HTTP/1.1"
    assert received.all(b"host") == [b"real.example"]


async def test_no_route_is_404_and_wrong_method_405(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[
            {
                "name": "get", "match": {"path": "/a", "methods": ["GET"]}, "upstream": "main",
                "auth": "none",
            }
        ],
    )  # fmt: skip
    async with gateway.session.get(gateway.url("/b")) as response:
        assert (response.status, (await response.json())["reason"]) == (404, "no_route")
    async with gateway.session.post(gateway.url("/a")) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET")


async def test_every_request_is_counted_and_logged_once_without_its_query(
    gateway: RunningGateway,
) -> None:
    async with gateway.session.get(gateway.url("/public/x?secret=1")):
        pass
    async with gateway.session.get(gateway.url("/api")):
        pass
    first, second = await gateway.logged(2)
    assert first["path"] == "/public/x"
    assert (first["route"], first["status"], first["source"]) == ("public", 200, "upstream")
    assert first["bytes_out"] == 2
    assert (second["route"], second["status"], second["reason"]) == ("api", 401, "missing")
    for route, code, source in (("public", "200", "upstream"), ("api", "401", "gateway")):
        labels = {"route": route, "method": "GET", "code": code, "source": source}
        assert await gateway.metric("gateway_requests_total", **labels) == 1
        assert await gateway.metric("gateway_request_duration_seconds_count", route=route) == 1
    assert await gateway.metric("gateway_upstream_duration_seconds_count", upstream="main") == 1
    assert await gateway.metric("gateway_inflight_requests") == 0


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        (b"a=1; b=2", b"a=1; b=2"),
        (b"a=1; __Host-gateway_session=secret; b=2", b"a=1; b=2"),
        (b"gateway_session=secret;gateway_sign_in=secret", None),
        (b"gateway_sessions=1; __Host-gateway_sign_in=secret", b"gateway_sessions=1"),
        (b"__Host-gateway_console=secret; gateway_console=secret; c=3", b"c=3"),
        (b'a="gateway_session"', b'a="gateway_session"'),
    ],
)
async def test_cookies_of_our_own_pages_are_not_handed_on(
    gateway: RunningGateway, upstream: RawUpstream, sent: bytes, forwarded: bytes | None
) -> None:
    client = await gateway.connect()
    await client.send(GET.replace(b"\r\n\r\n", b"\r\nCookie: %b\r\n\r\n" % sent))
    assert (await client.read_response()).status == 200
    assert upstream.requests[0].all(b"cookie") == ([] if forwarded is None else [forwarded])


@pytest.mark.parametrize(
    "theirs",
    [
        b"__Host-gateway_session=theirs; Path=/; Secure",
        b"gateway_sign_in =theirs",
        b"=gateway_session=theirs; Path=/",  # without a name: comes back as it stands
        b"gateway_session",
        b"gateway_session; Path=/",
        b"gateway_console=theirs; Path=/",
        b"__Host-gateway_console=theirs; Path=/; Secure",
    ],
)
async def test_an_application_cannot_set_the_cookies_of_the_sign_in_pages(
    gateway: RunningGateway, upstream: RawUpstream, theirs: bytes
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: %b\r\n"
        b"Set-Cookie: mine=1\r\nContent-Length: 0\r\n\r\n" % theirs
    )
    client = await gateway.connect()
    await client.send(GET)
    response = await client.read_response()
    assert response.header("set-cookie") == "mine=1"
