"""Decision mode on its listener: what it believes, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from support.deadlines import until
from support.running_gateway import (
    RawClient,
    Response,
    RunningGateway,
    StartGateway,
)
from support.servers.raw_upstream import RawUpstream

ROUTES = [
    {"name": "public", "match": {"path": "/public"}, "auth": "none"},
    {"name": "maybe", "match": {"path": "/maybe"}, "auth": "optional"},
    {"name": "api", "match": {"path": "/api"}},
    {"name": "write", "match": {"path": "/api", "methods": ["POST"]}, "scopes": ["orders:write"]},
    {"name": "shop", "match": {"path": "/shop"}, "claims": {"client_id": ["shop"]}},
    {
        "name": "who",
        "match": {"path": "/who"},
        "auth": "optional",
        "request_headers": {"set": {"X-Who": "{claim:client_id}", "X-Fixed": "1"}},
    },
    {"name": "hosts", "match": {"path": "/api", "hosts": ["open.example"]}, "auth": "none"},
]


async def start_authz(start: StartGateway, dialect: str, **sections: Any) -> RunningGateway:
    authz = {"port": 0, "dialect": dialect, "trusted_proxies": ["127.0.0.1/32"]}
    return await start(
        "http://127.0.0.1:9", **{"authz": authz | sections.pop("authz", {}), "routes": ROUTES},
        **sections,
    )  # fmt: skip


async def connect(gateway: RunningGateway) -> RawClient:
    return await gateway.connect_to(gateway.gateway.authz_address)


async def fetch(
    gateway: RunningGateway, *lines: str, first: str = "GET /authz HTTP/1.1", host: str = "h"
) -> Response:
    client = await connect(gateway)
    await client.send("\r\n".join((first, f"Host: {host}", *lines, "", "")).encode("latin-1"))
    return await client.read_response(has_body=not first.startswith("HEAD"))


def nginx(method: str, uri: str) -> tuple[str, str]:
    return f"X-Original-Method: {method}", f"X-Original-URI: {uri}"


def forwarded(method: str, uri: str, host: str = "h") -> tuple[str, ...]:
    return (
        f"X-Forwarded-Method: {method}", f"X-Forwarded-Uri: {uri}", f"X-Forwarded-Host: {host}",
        "X-Forwarded-Proto: https",
    )  # fmt: skip


async def test_response_shows_the_caller_and_nothing_of_it_is_left_to_the_client(
    start: StartGateway,
) -> None:
    gateway = await start_authz(start, "nginx")
    bearer = f"Authorization: Bearer {await gateway.token('shop')}"
    reply = await fetch(gateway, *nginx("GET", "/api/x?y=1"), bearer)
    assert (reply.status, reply.header("content-length")) == (200, "0")
    assert reply.header("x-client-id") == "shop"
    assert reply.header("x-token-scopes") == "orders:read"
    assert reply.header("x-token-subject") == ""
    for path in ("/public/x", "/maybe/x"):
        reply = await fetch(gateway, *nginx("GET", path))
        assert reply.status == 200
        for name in ("x-client-id", "x-client-name", "x-token-scopes", "x-token-subject"):
            assert reply.header(name) == "", "told to be empty, so that it replaces a claim"


async def test_claims_of_a_route_are_in_the_response_and_never_the_clients(
    start: StartGateway,
) -> None:
    gateway = await start_authz(start, "nginx")
    bearer = f"Authorization: Bearer {await gateway.token('shop')}"
    reply = await fetch(gateway, *nginx("GET", "/who"), bearer, "X-Who: admin")
    assert (reply.status, reply.header("x-who")) == (200, "shop")
    assert reply.header("x-fixed") is None, "which the proxy can set by itself"
    for path, lines in (("/who", ()), ("/api/x", (bearer,)), ("/public", ())):
        reply = await fetch(gateway, *nginx("GET", path), *lines)
        assert (reply.status, reply.header("x-who")) == (200, ""), "it replaces the client's"
    for name in ("X_Who", "X.Who"):
        reply = await fetch(gateway, *nginx("GET", "/public"), f"{name}: admin")
        assert reply.status == 400, name


async def test_each_dialect_reads_method_host_and_path_from_its_own_fields(
    start: StartGateway,
) -> None:
    for dialect, lines, first in (
        ("nginx", nginx("POST", "/api/x"), "GET /authz HTTP/1.1"),
        (
            "ingress_nginx",
            ("X-Original-Method: POST", "X-Original-URL: https://h:8443/api/x"),
            "GET /authz HTTP/1.1",
        ),
        ("forward_auth", forwarded("POST", "/api/x"), "GET /authz HTTP/1.1"),
        ("envoy", ("Content-Length: 0",), "POST /authz/api/x HTTP/1.1"),
    ):
        gateway = await start_authz(start, dialect)
        bearer = f"Authorization: Bearer {await gateway.token(dialect.replace('_', '-'))}"
        reply = await fetch(gateway, *lines, bearer, first=first)
        assert reply.status == 403, dialect
        assert 'scope="orders:write"' in (reply.header("www-authenticate") or "")
        swapped = [line.replace("POST", "GET") for line in lines]
        reply = await fetch(gateway, *swapped, bearer, first=first.replace("POST", "GET"))
        assert reply.status == 200, dialect
        opened = [line.replace("//h:", "//open.example:") for line in swapped]
        opened = [line.replace("Host: h", "Host: open.example") for line in opened]
        reply = await fetch(
            gateway, *opened, first=first.replace("POST", "GET"), host="open.example"
        )
        assert reply.status == 200, dialect


@pytest.mark.parametrize(
    ("dialect", "lines"),
    [
        ("nginx", ("X-Original-Method: GET",)),
        ("nginx", ("X-Original-URI: /public/x",)),
        ("nginx", (*nginx("GET", "/public/x"), "X-Original-URI: /public/y")),
        ("nginx", (*nginx("GET", "/public/x"), "X-Original-Method: GET")),
        ("nginx", nginx("G ET", "/public/x")),
        ("nginx", nginx("get", "/public/x")),
        ("nginx", (*nginx("GET", "/public/x"), "X-HTTP-Method-Override: POST")),
        ("forward_auth", (*forwarded("GET", "/public/x"), "X-Method-Override: POST")),
        ("nginx", nginx("GET", "http://h/public/x")),
        ("nginx", nginx("GET", "public/x")),
        ("nginx", nginx("GET", "*")),
        ("nginx", forwarded("GET", "/public/x")),
        ("nginx", ("X_Original_Method: GET", "X_Original_URI: /public/x")),
        ("ingress_nginx", nginx("GET", "/public/x")),
        ("ingress_nginx", ("X-Original-Method: GET", "X-Original-URL: /public/x")),
        ("ingress_nginx", ("X-Original-Method: GET", "X-Original-URL: http://a@h/public/x")),
        ("forward_auth", nginx("GET", "/public/x")),
        ("forward_auth", forwarded("GET", "/public/x")[:2]),
        ("forward_auth", forwarded("GET", "/public/x", "h, open.example")),
        ("forward_auth", (*forwarded("GET", "/public/x"), "X-Forwarded-Host: open.example")),
        ("forward_auth", (*forwarded("GET", "/public/x"), "X-Forwarded-Uri: /public/x")),
        ("forward_auth", forwarded("GET", "//open.example/public/x")),
    ],
)
async def test_ambiguous_authorization_check_is_400(
    start: StartGateway, dialect: str, lines: tuple[str, ...]
) -> None:
    gateway = await start_authz(start, dialect)
    reply = await fetch(gateway, *lines)
    assert reply.status == 400
    assert reply.header("connection") is None, "the proxy's connection goes on"


@pytest.mark.parametrize(
    "path",
    [
        "/public/../api/x", "/public/%2e%2e/api/x", "/api/../public/x", "//public/x",
        "/public//x", "/api//../public/x", "/public/./x", "/pub%6Cic/x", "/public/%2fapi",
        "/public\\x", "/public/x;y/../../api", "/public/..", "/public/#/x",
    ],
)  # fmt: skip
async def test_path_that_another_reader_could_take_for_another_is_refused(
    start: StartGateway, path: str
) -> None:
    gateway = await start_authz(start, "nginx")
    assert (await fetch(gateway, *nginx("GET", path))).status == 400
    gateway = await start_authz(start, "envoy")
    assert (await fetch(gateway, first=f"GET /authz{path} HTTP/1.1")).status == 400


@pytest.mark.parametrize("path", ["/public/%c3%a4", "/public/%C3%A4?a=../b", "/public/", "/public"])
async def test_path_that_every_reader_takes_for_the_same_is_decided_on(
    start: StartGateway, path: str
) -> None:
    gateway = await start_authz(start, "nginx")
    assert (await fetch(gateway, *nginx("GET", path))).status == 200


@pytest.mark.parametrize(
    "first",
    [
        "GET /public/x HTTP/1.1", "GET /authz/../public/x HTTP/1.1", "GET /authzpublic/x HTTP/1.1",
        "GET /authz HTTP/1.1", "GET /./authz/public/x HTTP/1.1", "GET /authz?/public/x HTTP/1.1",
        "GET http://h/authz/public/x HTTP/1.1",
    ],
)  # fmt: skip
async def test_question_of_envoy_is_asked_below_the_prefix_as_it_stands(
    start: StartGateway, first: str
) -> None:
    gateway = await start_authz(start, "envoy")
    assert (await fetch(gateway, first=first)).status in {400, 404}


async def test_only_trusted_proxies_may_ask(start: StartGateway) -> None:
    gateway = await start_authz(start, "nginx", authz={"trusted_proxies": ["192.0.2.0/24"]})
    reply = await fetch(gateway, *nginx("GET", "/public/x"))
    assert reply.status == 403
    assert reply.header("x-client-id") is None


async def test_nothing_but_the_path_of_decisions_is_served(start: StartGateway) -> None:
    gateway = await start_authz(start, "nginx")
    for path in ("/", "/token", "/authz/x", "/public/x", "/createClient"):
        reply = await fetch(gateway, *nginx("GET", "/public/x"), first=f"GET {path} HTTP/1.1")
        assert reply.status == 404


async def test_path_without_a_route_is_refused_and_so_are_the_providers_own(
    start: StartGateway,
) -> None:
    gateway = await start_authz(start, "nginx")
    for path in ("/", "/token", "/publicity"):
        assert (await fetch(gateway, *nginx("GET", path))).status == 404


async def test_rejection_of_a_head_request_has_a_body_for_the_proxy_that_sends_get(
    start: StartGateway,
) -> None:
    gateway = await start_authz(start, "nginx")
    client = await connect(gateway)
    for _ in range(2):  # the second would be misread if the first was framed wrongly
        lines = "\r\n".join(("GET /authz HTTP/1.1", "Host: h", *nginx("HEAD", "/api/x")))
        await client.send(f"{lines}\r\n\r\n".encode())
        reply = await client.read_response()
        assert reply.status == 401
        assert b'"reason":"missing"' in reply.body


async def test_connection_is_kept_whatever_the_responses_are(start: StartGateway) -> None:
    gateway = await start_authz(start, "forward_auth")
    token = await gateway.token()
    client = await connect(gateway)
    for path, status in (("/public/x", 200), ("/api/x", 401), ("/a/../b", 400), ("/api/y", 200)):
        lines = ["GET /authz HTTP/1.1", "Host: gateway", *forwarded("GET", path)]
        if status == 200:
            lines.append(f"Authorization: Bearer {token}")
        await client.send("\r\n".join((*lines, "", "")).encode())
        assert (await client.read_response()).status == status


async def test_limits_count_questions_and_requests_together(
    start: StartGateway, upstream: RawUpstream
) -> None:
    authz = {"port": 0, "dialect": "nginx", "trusted_proxies": ["127.0.0.1/32"]}
    gateway = await start(upstream.url, authz=authz, rate_limit={"requests": 2, "per": "1h"})
    token = await gateway.token()
    bearer = f"Authorization: Bearer {token}"
    async with gateway.session.get(
        gateway.url("/api/x"), headers={"Authorization": f"Bearer {token}"}
    ) as response:
        assert response.status == 200
    reply = await fetch(gateway, *nginx("GET", "/api/x"), bearer)
    assert (reply.status, reply.header("ratelimit-remaining")) == (200, "0")
    reply = await fetch(gateway, *nginx("GET", "/api/x"), bearer)
    assert reply.status == 429
    assert reply.header("retry-after")


async def test_limits_of_those_without_a_token_count_the_address_that_the_proxy_reports(
    start: StartGateway,
) -> None:
    gateway = await start_authz(start, "nginx", rate_limit={"requests": 1, "per": "1h"})
    for address, status in (("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 429)):
        reported = f"X-Forwarded-For: 203.0.113.9, {address}"
        reply = await fetch(gateway, *nginx("GET", "/public/x"), reported)
        assert reply.status == status


async def test_decisions_are_counted_timed_and_logged_as_what_was_asked_about(
    start: StartGateway,
) -> None:
    gateway = await start_authz(start, "nginx")
    assert (await fetch(gateway, *nginx("DELETE", "/api/x?secret=1"), "X-Request-Id: abc")).status
    (line,) = await gateway.logged(1)
    assert line["method"] == "DELETE"
    assert (line["path"], line["route"], line["source"]) == ("/api/x", "api", "authz")
    assert (line["status"], line["reason"], line["request_id"]) == (401, "missing", "abc")
    labels = {"route": "api", "method": "DELETE", "code": "401", "source": "authz"}
    assert await gateway.metric("gateway_requests_total", **labels) == 1
    assert await gateway.metric("gateway_auth_decisions_total", result="missing") == 1
    assert await gateway.metric("gateway_authz_duration_seconds_count") == 1


async def test_route_that_is_only_decided_on_is_not_served_nor_left_to_a_shorter_one(
    start: StartGateway, upstream: RawUpstream
) -> None:
    authz = {"port": 0, "dialect": "nginx", "trusted_proxies": ["127.0.0.1/32"]}
    routes = [
        {"name": "all", "match": {"path": "/"}, "upstream": "main", "auth": "none"},
        {"name": "asked", "match": {"path": "/asked"}, "auth": "none"},
    ]
    gateway = await start(upstream.url, authz=authz, routes=routes)
    async with gateway.session.get(gateway.url("/asked/x")) as response:
        assert response.status == 404
    async with gateway.session.get(gateway.url("/else")) as response:
        assert response.status == 200
    assert len(upstream.requests) == 1
    assert (await fetch(gateway, *nginx("GET", "/asked/x"))).status == 200


async def test_proxies_that_ask_are_let_go_when_the_gateway_drains(start: StartGateway) -> None:
    gateway = await start_authz(start, "nginx")
    client = await connect(gateway)
    lines = "\r\n".join(("GET /authz HTTP/1.1", "Host: h", *nginx("GET", "/public/x")))
    await client.send(f"{lines}\r\n\r\n".encode())
    assert (await client.read_response()).header("connection") is None
    await gateway.gateway.drain(delay_s=0, grace_s=2)
    await client.send(f"{lines}\r\n\r\n".encode())
    assert (await client.read_response()).header("connection") == "close"
    await until(lambda: gateway.gateway.connections == 0)


@pytest.mark.parametrize(
    "name",
    [
        "X-HTTP-Method-Override", "X_HTTP_Method_Override", "X-HTTP_Method-Override",
        "x.http.method", "X-Method_Override",
    ],
)  # fmt: skip
async def test_second_method_is_refused_in_any_spelling_that_cgi_programs_take_for_it(
    start: StartGateway, name: str
) -> None:
    gateway = await start_authz(start, "nginx")
    response = await fetch(gateway, *nginx("GET", "/public/x"), f"{name}: DELETE")
    assert response.status == 400
    assert b'"reason":"method_override"' in response.body


@pytest.mark.parametrize("name", ["X_Client_Id", "X-Client_Name", "x.token.scopes"])
async def test_look_alike_of_an_identity_field_is_refused_where_the_other_proxy_would_forward_it(
    start: StartGateway, name: str
) -> None:
    gateway = await start_authz(start, "forward_auth")
    response = await fetch(gateway, *forwarded("GET", "/public/x"), f"{name}: admin")
    assert response.status == 400
    assert b'"reason":"identity_look_alike"' in response.body
    exact = await fetch(gateway, *forwarded("GET", "/public/x"), "X-Client-Id: admin")
    assert (exact.status, exact.header("X-Client-Id")) == (200, "")


async def test_rules_on_claims_decide_here_too(start: StartGateway) -> None:
    gateway = await start_authz(start, "nginx")
    for client, status in (("shop", 200), ("spa", 403)):
        bearer = f"Authorization: Bearer {await gateway.token(client)}"
        reply = await fetch(gateway, *nginx("GET", "/shop"), bearer)
        assert reply.status == status
    assert "The claim client_id of the token" in str(reply.header("www-authenticate"))
