"""What a request must pass before its token is looked at, on real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.deadlines import until, within
from support.protocols import both_protocols, only_http1
from support.running_gateway import Response, RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream, Received

from gateway.downstream import h1 as client_module

pytestmark = both_protocols


def route(name: str, path: str, **keys: Any) -> dict[str, Any]:
    """An open route to the upstream, unless told otherwise."""
    match = {"path": path} | keys.pop("match", {})
    return {"name": name, "match": match, "auth": "none", "upstream": "main"} | keys


async def fetch(gateway: RunningGateway, *lines: str, has_body: bool = True) -> Response:
    """The response to a request on a connection of its own."""
    client = await gateway.connect()
    head = "\r\n".join((f"{lines[0]} HTTP/1.1", "Host: h", *lines[1:], "", ""))
    await client.send(head.encode("latin-1"))
    return await client.read_response(has_body=has_body)


# Addresses.


@pytest.mark.parametrize(
    ("ip", "status"),
    [
        ({"allow": ["127.0.0.0/8"]}, 200),
        ({"allow": ["10.0.0.0/8", "::1/128"]}, 403),
        ({"deny": ["127.0.0.1/32"]}, 403),
        ({"deny": ["10.0.0.0/8"]}, 200),
        ({"allow": ["127.0.0.0/8"], "deny": ["127.0.0.1/32"]}, 403),
    ],
)
async def test_address_decides_before_the_token(
    start: StartGateway, upstream: RawUpstream, ip: dict[str, Any], status: int
) -> None:
    gateway = await start(
        upstream.url, routes=[route("a", "/a", ip=ip), route("b", "/b", ip=ip, auth="required")]
    )
    assert (await fetch(gateway, "GET /a")).status == status
    assert (await fetch(gateway, "GET /b")).status == (403 if status == 403 else 401)


async def test_address_is_the_clients_behind_a_trusted_proxy_and_never_a_claim(
    start: StartGateway, upstream: RawUpstream
) -> None:
    routes = [route("a", "/", ip={"allow": ["192.0.2.0/24"]})]
    direct = await start(upstream.url, routes=routes)
    assert (await fetch(direct, "GET /", "X-Forwarded-For: 192.0.2.7")).status == 403
    behind = await start(upstream.url, routes=routes, trusted_proxies=["127.0.0.0/8"])
    assert (await fetch(behind, "GET /", "X-Forwarded-For: 192.0.2.7")).status == 200
    assert (await fetch(behind, "GET /", "X-Forwarded-For: ::ffff:192.0.2.7")).status == 200
    # The one nearest to us that no trusted proxy vouches for, not the first in the list.
    assert (await fetch(behind, "GET /", "X-Forwarded-For: 192.0.2.7, 198.51.100.1")).status == 403


# Maintenance.


async def test_maintenance_of_a_route_or_of_all_is_503_but_for_some(
    start: StartGateway, upstream: RawUpstream
) -> None:
    closed = {"retry_after": "2m"}
    gateway = await start(
        upstream.url,
        routes=[
            route("a", "/a", maintenance=closed),
            route("b", "/b", maintenance=closed | {"allow": ["127.0.0.1/32"]}),
            route("c", "/c", maintenance={"enabled": False}),
        ],
    )
    response = await fetch(gateway, "GET /a")
    assert (response.status, response.header("Retry-After")) == (503, "120")
    assert (await fetch(gateway, "GET /b")).status == 200
    assert (await fetch(gateway, "GET /c")).status == 200
    everywhere = await start(upstream.url, maintenance={})
    assert (await fetch(everywhere, "GET /public")).status == 503
    assert (await fetch(everywhere, "GET /api")).status == 503
    await everywhere.token("still-served")


# https.


async def test_plain_http_is_sent_to_https_before_the_token(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[route("a", "/", https_only=True, auth="required")],
        trusted_proxies=["127.0.0.0/8"],
    )
    response = await fetch(gateway, "GET /a/../b?c=d")
    assert (response.status, response.header("Location")) == (308, "https://h/b?c=d")
    assert (await fetch(gateway, "GET /a", "X-Forwarded-Proto: https")).status == 401


# CORS.

CORS = {
    "origins": ["https://app.example", "https://*.wild.example:8443"],
    "origin_regexes": ["https://pr-[0-9]+[.]preview[.]example"],
    "expose_headers": ["X-Total"], "credentials": True, "max_age": "5m",
}  # fmt: skip
ALLOWED = [
    "https://app.example", "https://a.wild.example:8443", "https://a.b.wild.example:8443",
    "https://pr-7.preview.example",
]  # fmt: skip
REFUSED = [
    "http://app.example", "https://app.example:444", "https://app.example.evil.example",
    "https://evilapp.example", "https://wild.example:8443", "https://evilwild.example:8443",
    "https://evil.example/.wild.example:8443", "https://evil@x.wild.example:8443",
    "https://.wild.example:8443", "https://pr-7.preview.example.evil.example",
    "https://evil.example#https://pr-7.preview.example", "https://pr-7xpreview.example", "null",
    "https://APP.example", "https://app.example, https://app.example", "*",
]  # fmt: skip


@pytest.mark.parametrize("origin", ALLOWED + REFUSED)
async def test_preflight_is_served_before_the_token_for_these_origins_only(
    start: StartGateway, upstream: RawUpstream, origin: str
) -> None:
    gateway = await start(
        upstream.url,
        routes=[route("a", "/a", cors=CORS, auth="required", match={"methods": ["GET", "PUT"]})],
    )
    authorization_parameters = "Access-Control-Request-Method: PUT"
    response = await fetch(
        gateway, "OPTIONS /a/x", f"Origin: {origin}", authorization_parameters, has_body=False
    )
    assert response.header("Vary") == "Origin"
    if origin in ALLOWED:
        assert response.status == 204
        assert response.header("Access-Control-Allow-Origin") == origin
        assert response.header("Access-Control-Allow-Methods") == "GET, PUT"
        assert response.header("Access-Control-Allow-Headers") == "Authorization, Content-Type"
        assert response.header("Access-Control-Allow-Credentials") == "true"
        assert response.header("Access-Control-Max-Age") == "300"
    else:
        assert response.status == 403
        assert response.header("Access-Control-Allow-Origin") is None
        assert response.header("Access-Control-Allow-Credentials") is None
    assert upstream.requests == []


async def test_responses_and_refusals_show_the_browser_who_may_read_them(
    start: StartGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    gateway = await start(
        upstream.url,
        routes=[route("a", "/a", cors=CORS), route("b", "/b", cors=CORS, auth="required")],
    )
    for path, status in (("/a", 200), ("/b", 401)):
        response = await fetch(gateway, f"GET {path}", "Origin: https://app.example")
        assert response.status == status
        assert response.header("Access-Control-Allow-Origin") == "https://app.example"
        assert response.header("Access-Control-Expose-Headers") == "X-Total"
        assert ("Vary", "Origin") in response.headers
        response = await fetch(gateway, f"GET {path}", "Origin: https://evil.example")
        assert response.status == status
        assert response.header("Access-Control-Allow-Origin") is None
        assert ("Vary", "Origin") in response.headers


async def test_any_origin_is_reported_as_such_and_without_credentials(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=[route("a", "/a", cors={"origins": ["*"]})])
    response = await fetch(gateway, "GET /a", "Origin: https://evil.example")
    assert response.header("Access-Control-Allow-Origin") == "*"
    assert response.header("Access-Control-Allow-Credentials") is None
    assert response.header("Vary") is None


async def test_preflight_finds_the_route_of_the_method_that_it_asks_for(
    start: StartGateway, upstream: RawUpstream
) -> None:
    one, two = {"origins": ["https://one.example"]}, {"origins": ["https://two.example"]}
    gateway = await start(
        upstream.url,
        routes=[
            route("read", "/a", cors=one, match={"methods": ["GET"]}),
            route("write", "/a", cors=two, match={"methods": ["POST"]}),
            route(
                "special", "/b", cors=one, match={"headers": [{"name": "X-Special"}]},
            ),
            route("none", "/c"),
        ],
    )  # fmt: skip

    async def preflight(path: str, origin: str, method: str) -> int:
        response = await fetch(
            gateway, f"OPTIONS {path}", f"Origin: https://{origin}.example",
            f"Access-Control-Request-Method: {method}", has_body=False,
        )  # fmt: skip
        return response.status

    assert await preflight("/a", "one", "GET") == 204
    assert await preflight("/a", "one", "POST") == 403
    assert await preflight("/a", "two", "POST") == 204
    assert await preflight("/a", "one", "DELETE") == 405
    assert await preflight("/b", "one", "GET") == 204
    assert upstream.requests == []
    assert await preflight("/c", "one", "GET") == 200
    assert upstream.requests[0].request_line == b"OPTIONS /c HTTP/1.1"
    assert (await fetch(gateway, "OPTIONS /a", "Origin: https://one.example")).status == 405


async def test_what_is_no_preflight_does_not_choose_a_route_by_the_method_that_it_names(
    start: StartGateway, upstream: RawUpstream
) -> None:
    cors = {"origins": ["https://one.example"]}
    gateway = await start(
        upstream.url,
        routes=[
            route("read", "/a", cors=cors, match={"methods": ["GET"]}),
            route("rest", "/a", auth="required"),
        ],
    )
    # Without an origin nobody would answer it as a preflight: it would go to the upstream.
    for origin, status in ((), 401), (("Origin: https://one.example",), 204):
        response = await fetch(
            gateway, "OPTIONS /a", "Access-Control-Request-Method: GET", *origin,
            has_body=not origin,
        )  # fmt: skip
        assert response.status == status
    assert upstream.requests == []


# Body limits.

LIMITED = [route("a", "/a", limits={"body": "1KiB"})]


async def test_body_whose_length_is_reported_is_refused_before_it_is_asked_for(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=LIMITED)
    client = await gateway.connect()
    head = b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n"
    await client.send(head)
    response = await client.read_response()
    assert (response.status, response.header("Connection")) == (413, "close")
    assert upstream.connections == 0
    assert (await fetch(gateway, "POST /a", "Content-Length: 0")).status == 200
    client = await gateway.connect()
    await client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024)
    assert (await client.read_response()).status == 200


async def test_body_of_unknown_length_is_cut_where_it_becomes_too_large(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=LIMITED)
    chunk = b"200\r\n" + b"x" * 512 + b"\r\n"
    head = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = await gateway.connect()
    await client.send(head + chunk + chunk + b"0\r\n\r\n")
    assert (await client.read_response()).status == 200
    assert len(upstream.requests[0].body) == 1024

    heads: list[Received] = []

    async def script(conversation: Conversation, upstream: RawUpstream) -> None:
        received = await conversation.read_head()
        assert received is not None
        heads.append(received)
        await conversation.read_body(received)

    upstream.script = script
    gateway = await start(upstream.url, routes=LIMITED)
    client = await gateway.connect()
    await client.send(head + chunk)
    await until(lambda: len(heads) == 1)
    await client.send(chunk + chunk)
    response = await client.read_response()
    assert (response.status, response.header("Connection")) == (413, "close")
    # The upstream sees a body that broke off, and never a whole request.
    await until(lambda: upstream.broken_bodies == 1)
    assert len(upstream.requests) == 1
    lines = await gateway.logged(2)
    assert (lines[1]["status"], lines[1]["reason"]) == (413, "body_too_large")


@pytest.mark.parametrize("pause", [False, True])
@only_http1
async def test_what_follows_a_body_that_is_too_large_is_never_a_request(
    start: StartGateway, upstream: RawUpstream, pause: bool
) -> None:
    gateway = await start(upstream.url, routes=LIMITED)
    hidden = b"GET /a?hidden HTTP/1.1\r\nHost: h\r\n\r\n"
    client = await gateway.connect()
    await client.send(
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + b"x" * 1500
    )
    if pause:
        assert (await client.read_response()).status == 413
    await client.send(b"x" * 548 + b"\r\n0\r\n\r\n" + hidden)
    rest = await client.read_to_end()
    assert rest.count(b"HTTP/1.1") == (0 if pause else 1)
    assert not any(b"hidden" in received.request_line for received in upstream.requests)


@only_http1
async def test_client_whose_body_was_too_large_is_not_listened_to_for_long(
    start: StartGateway, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LINGER_S", 0.05)
    gateway = await start(upstream.url, routes=LIMITED)
    client = await gateway.connect()
    await client.send(
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + b"x" * 1500
    )
    assert (await client.read_response()).status == 413
    async with within():
        while await gateway.metric("gateway_connections"):
            await asyncio.sleep(0.02)


async def test_response_that_has_begun_is_cut_where_the_body_becomes_too_large(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async def script(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await conversation.reader.read()

    upstream.script = script
    gateway = await start(upstream.url, routes=LIMITED)
    client = await gateway.connect()
    await client.send(
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    )
    async with within():
        assert await client.reader.readuntil(b"half")
    await client.send(b"800\r\n" + b"x" * 2048 + b"\r\n0\r\n\r\n")
    assert await client.read_to_end() == b""


# Split.


async def test_split_shares_requests_out_by_weight_and_counts_them(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with RawUpstream() as canary:
        gateway = await start(
            upstream.url,
            upstreams={"main": {"targets": [upstream.url]}, "canary": {"targets": [canary.url]}},
            routes=[
                route(
                    "a", "/", upstream=None,
                    split=[{"upstream": "main", "weight": 3}, {"upstream": "canary", "weight": 1}],
                )
            ],
        )  # fmt: skip
        client = await gateway.connect()
        for _ in range(200):
            await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await client.read_response()
        main, new = len(upstream.requests), len(canary.requests)
    assert main + new == 200
    # A share outside of this is less likely than one in a million.
    assert 20 < new < 85
    assert await gateway.metric("gateway_split_requests_total", route="a", upstream="main") == main
    assert (await gateway.logged(200))[0]["upstream"] in {"main", "canary"}


async def test_split_keeps_what_has_the_same_key_together_and_moves_little(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with RawUpstream() as canary:
        upstreams = {"main": {"targets": [upstream.url]}, "canary": {"targets": [canary.url]}}

        async def on_canary(weight: int) -> set[bytes]:
            canary.requests.clear()
            split = [{"upstream": "canary", "weight": weight}]
            split.append({"upstream": "main", "weight": 100 - weight})
            gateway = await start(
                upstream.url,
                upstreams=upstreams,
                routes=[route("a", "/", upstream=None, split=split, split_by="header:X-User")],
            )
            client = await gateway.connect()
            for _ in range(2):
                for user in range(50):
                    await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX-User: u%d\r\n\r\n" % user)
                    await client.read_response()
            users = [received.all(b"X-User")[0] for received in canary.requests]
            assert all(users.count(user) == 2 for user in users)
            return set(users)

        few, more = await on_canary(10), await on_canary(40)
        assert few < more
        assert await on_canary(0) == set()


# Decisions for other proxies.


async def test_request_filters_hold_for_decisions_and_a_preflight_is_not_allowed(
    start: StartGateway,
) -> None:
    gateway = await start(
        "http://127.0.0.1:9",
        authz={"port": 0, "dialect": "nginx", "trusted_proxies": ["127.0.0.1/32"]},
        routes=[
            {"name": "a", "match": {"path": "/a"}, "cors": {"origins": ["https://app.example"]}},
            {"name": "b", "match": {"path": "/b"}, "auth": "none", "ip": {"deny": ["::/0"]}},
            {"name": "c", "match": {"path": "/c"}, "auth": "none", "maintenance": {}},
            {
                "name": "d", "match": {"path": "/d", "headers": [{"name": "X-D"}]}, "auth": "none",
            },
        ],
    )  # fmt: skip

    async def decide(method: str, path: str, *lines: str) -> int:
        client = await gateway.connect_to(gateway.gateway.authz_address)
        reported = f"X-Original-Method: {method}", f"X-Original-URI: {path}"
        head = ("GET /authz HTTP/1.1", "Host: h", *reported, *lines, "", "")
        await client.send("\r\n".join(head).encode())
        return (await client.read_response()).status

    preflight = ("Origin: https://app.example", "Access-Control-Request-Method: GET")
    assert await decide("OPTIONS", "/a", *preflight) == 400
    assert await decide("GET", "/b") == 200
    assert await decide("GET", "/c") == 503
    assert await decide("GET", "/d", "X-D: 1") == 200
    assert await decide("GET", "/d") == 404
