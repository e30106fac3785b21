"""Routes chosen by conditions, and what they make of a request, on real sockets."""

from __future__ import annotations

from typing import Any

import pytest
from support.protocols import both_protocols, only_http1
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

pytestmark = both_protocols


def route(name: str, path: str, **keys: Any) -> dict[str, Any]:
    """An open route to the upstream, unless told otherwise."""
    match = {"path": path} | keys.pop("match", {})
    base: dict[str, Any] = {"name": name, "match": match, "auth": "none"}
    if not keys.keys() & {"redirect", "respond"}:
        base["upstream"] = "main"
    return base | keys


async def fetch(gateway: RunningGateway, head: bytes) -> Any:
    """The response to a request on a connection of its own."""
    client = await gateway.connect()
    await client.send(head + b"\r\n\r\n")
    return await client.read_response(has_body=not head.startswith(b"HEAD"))


async def test_route_is_chosen_by_header_and_query_and_never_falls_to_a_shorter_path(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[
            route("root", "/", respond={"body": "root"}),
            route(
                "canary", "/api",
                match={"headers": [{"name": "X-Canary", "exact": "1"}]}, respond={"body": "canary"},
            ),
            route(
                "v2", "/api",
                match={"query": [{"name": "v", "regex": "[2-9]"}]}, respond={"body": "v2"},
            ),
        ],
    )  # fmt: skip
    canary = await fetch(gateway, b"GET /api/x HTTP/1.1\r\nHost: h\r\nX-Canary: 1")
    assert canary.body == b"canary"
    assert (await fetch(gateway, b"GET /api/x?v=3 HTTP/1.1\r\nHost: h")).body == b"v2"
    assert (await fetch(gateway, b"GET /other HTTP/1.1\r\nHost: h")).body == b"root"
    for line in (
        b"GET /api/x HTTP/1.1\r\nHost: h",
        b"GET /api/x?v=3&v=4 HTTP/1.1\r\nHost: h",
        b"GET /api/x HTTP/1.1\r\nHost: h\r\nX-Canary: 1\r\nX-Canary: 1",
        b"GET /api/x HTTP/1.1\r\nHost: h\r\nX_Canary: 1",
    ):
        assert (await fetch(gateway, line)).status == 404, line


async def test_pattern_narrows_its_path_and_cannot_open_another(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[
            route("open", "/", match={"regex": "/.*[.]png"}),
            route("api", "/api", auth="required"),
        ],
    )
    assert (await fetch(gateway, b"GET /img/a.png HTTP/1.1\r\nHost: h")).status == 200
    for path, status in (
        (b"/api/secret.png", 401),
        (b"/img/../api/x.png", 401),
        (b"/%61pi/x.png", 401),
        (b"/api;/x.png", 400),
        (b"/img/a.png/", 404),
        (b"/img/a.gif", 404),
        (b"/img/a.png%0a", 400),
    ):
        response = await fetch(gateway, b"GET %b HTTP/1.1\r\nHost: h" % path)
        assert response.status == status, path
    assert len(upstream.requests) == 1


async def test_path_is_stripped_prefixed_and_replaced_in_this_order(
    start: StartGateway, upstream: RawUpstream
) -> None:
    rewrite = {
        "strip_prefix": "/api", "add_prefix": "/v1",
        "regex": {"pattern": "/orders/([0-9]+)", "substitution": r"/o/\1"},
    }  # fmt: skip
    gateway = await start(upstream.url, routes=[route("api", "/api", rewrite=rewrite)])
    for path in (b"/api/orders/7?a=/../b", b"/api", b"/api/"):
        assert (await fetch(gateway, b"GET %b HTTP/1.1\r\nHost: h" % path)).status == 200
    assert [received.request_line for received in upstream.requests] == [
        b"GET /v1/o/7?a=/../b HTTP/1.1", b"GET /v1 HTTP/1.1", b"GET /v1/ HTTP/1.1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "substitution", "path"),
    [
        ("x", "/", "/a/x"), ("x", "..", "/a/x"), ("x", "%2f", "/a/x"), ("x", "?q", "/a/x"),
        ("x", " HTTP/1.1\r\nX-Evil: 1\r\n", "/a/x"), ("/a", "a", "/a/x"), ("%25", "%", "/a/%252e"),
        ("x", "#", "/a/x"), ("x", "\u00e5", "/a/x"),
    ],
)  # fmt: skip
async def test_rewrite_to_what_is_no_canonical_path_is_refused(
    start: StartGateway, upstream: RawUpstream, pattern: str, substitution: str, path: str
) -> None:
    rewrite = {"regex": {"pattern": pattern, "substitution": substitution}}
    gateway = await start(upstream.url, routes=[route("a", "/", rewrite=rewrite)])
    response = await fetch(gateway, b"GET %b HTTP/1.1\r\nHost: h" % path.encode())
    assert response.status == 400
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["/%252e%252e/admin", "/..%3b/admin", "/..%255cadmin"])
async def test_path_cannot_climb_out_of_the_prefix_that_a_rewrite_adds(
    start: StartGateway, upstream: RawUpstream, path: str
) -> None:
    gateway = await start(
        upstream.url, routes=[route("a", "/", rewrite={"add_prefix": "/tenants/a"})]
    )
    assert (await fetch(gateway, f"GET {path} HTTP/1.1\r\nHost: h".encode())).status == 400
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [("preserve", b"client.example:8080"), ("upstream", None), ("api.internal", b"api.internal")],
)
async def test_host_is_rewritten_and_the_clients_own_is_reported(
    start: StartGateway, upstream: RawUpstream, host: str, expected: bytes | None
) -> None:
    gateway = await start(upstream.url, routes=[route("a", "/", rewrite={"host": host})])
    await fetch(gateway, b"GET / HTTP/1.1\r\nHost: client.example:8080")
    (received,) = upstream.requests
    assert received.all(b"Host") == [expected or upstream.url.removeprefix("http://").encode()]
    assert received.all(b"X-Forwarded-Host") == [b"client.example:8080"]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v1/login?next=/a#b", "/app/login?next=/a#b"),
        ("/v1", "/app"),
        ("/v1/", "/app/"),
        ("http://{upstream}/v1/login", "/app/login"),
        ("HTTP://API.Internal/v1/login", "/app/login"),
        ("https://h/v1/login", "/app/login"),
        ("/v1//evil.example", "/app//evil.example"),
        # What leads elsewhere, or is relative to the request, stays as it is.
        ("/v10", None), ("/login", None), ("http://{upstream}", None), ("login", None),
        ("?page=2", None), ("", None), ("https://other.example/v1/login", None),
        ("//h/v1/x", None), ("/\\\\h/v1/x", None), ("http://h@other.example/v1/x", None),
        ("ftp://h/v1/x", None), ("http://{upstream}0/v1", None),
    ],
)  # fmt: skip
async def test_location_of_the_upstream_leads_back_through_the_rewrite(
    start: StartGateway, upstream: RawUpstream, location: str, expected: str | None
) -> None:
    location = location.replace("{upstream}", upstream.url.removeprefix("http://"))
    response = (
        f"HTTP/1.1 302 Found\r\nLocation: {location}\r\ncontent-location: {location}\r\n"
        "X-Location: /v1/x\r\nContent-Length: 0\r\n\r\n"
    )
    upstream.respond = lambda received: response.encode()
    rewrite = {"strip_prefix": "/app", "add_prefix": "/v1", "host": "api.internal"}
    gateway = await start(
        upstream.url,
        routes=[
            route("mapped", "/app", rewrite={**rewrite, "location": True}),
            route("as-is", "/app/raw", rewrite=rewrite),
        ],
    )
    mapped = await fetch(gateway, b"GET /app/x HTTP/1.1\r\nHost: h")
    assert mapped.header("location") == (location if expected is None else expected)
    assert mapped.header("content-location") == mapped.header("location")
    assert mapped.header("x-location") == "/v1/x"
    untouched = await fetch(gateway, b"GET /app/raw HTTP/1.1\r\nHost: h")
    assert untouched.header("location") == location


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v1//evil.example", "/evil.example"),
        # Browsers skip tabs.
        ("/v1/\t/evil.example", "/v1/\t/evil.example"),
        ("/v1/?\tx", "/v1/?\tx"),
    ],
)
async def test_location_that_a_rewrite_would_make_another_host_of_stays_a_path(
    start: StartGateway, upstream: RawUpstream, location: str, expected: str
) -> None:
    upstream.respond = lambda received: (
        f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    rewrite = {"add_prefix": "/v1", "location": True}
    gateway = await start(upstream.url, routes=[route("a", "/", rewrite=rewrite)])
    found = await fetch(gateway, b"GET / HTTP/1.1\r\nHost: h")
    assert found.header("location") == expected


async def test_routes_on_one_connection_do_not_share_a_changed_head(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[
            route("a", "/a", rewrite={"host": "a.internal"}, request_headers={"set": {"X-A": "1"}}),
            route("b", "/b"),
        ],
    )
    client = await gateway.connect()
    for path in (b"/a", b"/b", b"/a"):
        await client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
        await client.read_response()
    assert [one.all(b"Host") for one in upstream.requests] == [
        [b"a.internal"], [b"h"], [b"a.internal"],
    ]  # fmt: skip
    assert [one.all(b"X-A") for one in upstream.requests] == [[b"1"], [], [b"1"]]


async def test_headers_are_set_added_and_removed_both_ways_with_variables(
    start: StartGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nServer: app\r\nX-Both: theirs\r\nX-Set: theirs\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    gateway = await start(
        upstream.url,
        routes=[
            route(
                "api", "/api", auth="required",
                request_headers={
                    "set": {
                        "X-Tenant": "{client_id} {{of}} {client_name}", "X-Empty": "{query}",
                        "X-Where": "{method} {scheme}://{host}{uri} {route} {source} {scopes}",
                        "X-Agent": "{header:User-Agent}", "Authorization": "Basic c2VjcmV0",
                    },
                    "add": {"X-Both": "ours"},
                    "remove": ["Cookie"],
                },
                response_headers={
                    "set": {"X-Set": "{client_id}"}, "add": {"X-Both": "ours"},
                    "remove": ["Server"],
                },
            )
        ],
    )  # fmt: skip
    token = await gateway.token("c-1")
    client = await gateway.connect()
    await client.send(
        b"GET /api/x HTTP/1.1\r\nHost: H:80\r\nX-Tenant: evil\r\nx_tenant: evil\r\n"
        b"X-Empty: evil\r\nX-Both: theirs\r\nCookie: a=b\r\nUser-Agent: caf\xc3\xa9\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % token.encode()
    )
    response = await client.read_response()
    (received,) = upstream.requests
    assert received.all(b"X-Tenant") == [b"c-1 {of} c-1"]
    assert b"x_tenant" not in received.names()
    assert received.all(b"X-Where") == [b"GET http://h/api/x api 127.0.0.1 orders:read"]
    assert received.all(b"X-Empty") == received.all(b"Cookie") == []
    assert received.all(b"X-Both") == [b"theirs", b"ours"]
    assert received.all(b"X-Agent") == [b"caf%C3%83%C2%A9"]
    assert received.all(b"Authorization") == [b"Basic c2VjcmV0"]
    assert response.header("X-Set") == "c-1"
    assert [value for name, value in response.headers if name == "X-Both"] == ["theirs", "ours"]
    assert response.header("Server") is None
    assert response.body == b"ok"


async def test_response_headers_hold_for_refusals_too(
    start: StartGateway, upstream: RawUpstream
) -> None:
    changes = {"set": {"Strict-Transport-Security": "max-age=9"}}
    gateway = await start(
        upstream.url, routes=[route("api", "/api", auth="required", response_headers=changes)]
    )
    response = await fetch(gateway, b"GET /api HTTP/1.1\r\nHost: h")
    assert response.status == 401
    assert response.header("Strict-Transport-Security") == "max-age=9"


@pytest.mark.parametrize(
    "value",
    [b"a\x80b", b"%0d%0aX-Evil: 1", b"\xe2\x80\xa8X-Evil: 1", b"a\tb"],
)
async def test_variable_cannot_end_its_line(
    start: StartGateway, upstream: RawUpstream, value: bytes
) -> None:
    echo = {"set": {"X-Echo": "<{header:X-Input}{query}>"}}
    gateway = await start(
        upstream.url, routes=[route("a", "/", request_headers=echo, response_headers=echo)]
    )
    head = b"GET /?%%0d%%0aX-Evil:1 HTTP/1.1\r\nHost: h\r\nX-Input: %b" % value
    response = await fetch(gateway, head)
    (received,) = upstream.requests
    assert b"x-evil" not in received.names()
    assert response.header("X-Evil") is None
    assert len(received.all(b"X-Echo")) == 1
    assert response.header("X-Echo") == received.all(b"X-Echo")[0].decode("ascii")


async def test_redirect_leads_to_the_rewritten_path_and_never_to_a_host_of_the_callers(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[
            route(
                "old", "/old",
                rewrite={"strip_prefix": "/old"}, redirect={"to": "https://new.example{uri}"},
            ),
            route("here", "/here", redirect={"to": "{path}", "status": 302}),
            route("same", "/same", redirect={"to": "https://{host}{uri}"}),
        ],
    )  # fmt: skip
    response = await fetch(gateway, b"POST /old/x?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 0")
    assert (response.status, response.header("Location")) == (308, "https://new.example/x?a=b")
    response = await fetch(gateway, b"GET /old//evil.example HTTP/1.1\r\nHost: h")
    assert response.header("Location") == "https://new.example/evil.example"
    response = await fetch(gateway, b"GET //evil.example/../here/%0d HTTP/1.1\r\nHost: h")
    assert response.status == 400
    response = await fetch(gateway, b"GET //here//evil.example HTTP/1.1\r\nHost: h")
    assert (response.status, response.header("Location")) == (302, "/here/evil.example")
    response = await fetch(gateway, b"GET /same HTTP/1.1\r\nHost: A.example:81")
    assert response.header("Location") == "https://a.example/same"
    assert upstream.requests == []
    lines = await gateway.logged(5)
    assert (lines[0]["source"], lines[0]["reason"], lines[0]["route"]) == (
        "gateway", "redirect", "old",
    )  # fmt: skip


@only_http1
async def test_redirect_without_a_host_is_400(start: StartGateway, upstream: RawUpstream) -> None:
    same = route("same", "/same", redirect={"to": "https://{host}{uri}"})
    gateway = await start(upstream.url, routes=[same])
    assert (await fetch(gateway, b"GET /same HTTP/1.0")).status == 400


async def test_fixed_response_asks_for_a_token_unless_the_route_is_open(
    start: StartGateway, upstream: RawUpstream
) -> None:
    respond = {"status": 203, "body": "hallo", "headers": {"X-Path": "{path}"}}
    gateway = await start(
        upstream.url,
        routes=[
            route("open", "/open", respond=respond),
            route("closed", "/closed", respond=respond, auth="required"),
        ],
    )
    response = await fetch(gateway, b"GET /open/x HTTP/1.1\r\nHost: h")
    assert (response.status, response.body, response.header("X-Path")) == (203, b"hallo", "/open/x")
    assert response.header("Content-Type") == "text/plain; charset=utf-8"
    head = await fetch(gateway, b"HEAD /open HTTP/1.1\r\nHost: h")
    assert (head.status, head.header("Content-Length")) == (203, "5")
    assert (await fetch(gateway, b"GET /closed HTTP/1.1\r\nHost: h")).status == 401
    assert await gateway.metric(
        "gateway_requests_total", route="open", method="GET", code="203", source="gateway"
    )


async def test_body_of_a_request_served_here_is_never_read_as_a_request(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=[route("a", "/a", respond={"body": "a"})])
    hidden = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
    whole = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden
    client = await gateway.connect()
    await client.send(whole + b"GET /a?2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert (await client.read_to_end()).count(b"HTTP/1.1 200") == 2
    part = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + hidden
    responses = await gateway.send(part)
    assert responses.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in responses


async def test_pattern_that_backtracks_elsewhere_takes_no_time_here(
    start: StartGateway, upstream: RawUpstream
) -> None:
    evil = "/(a+)+b"
    gateway = await start(
        upstream.url,
        routes=[
            route(
                "a", "/",
                match={"regex": evil, "headers": [{"name": "X-A", "regex": "(a|aa)+$b?"}]},
                rewrite={"regex": {"pattern": "(a*)*c", "substitution": ""}},
            )
        ],
    )  # fmt: skip
    path = b"/" + b"a" * 8000
    response = await fetch(gateway, b"GET %b HTTP/1.1\r\nHost: h\r\nX-A: %b" % (path, b"a" * 8000))
    # A backtracking engine would need longer than the universe has.
    assert response.status == 404
