"""gRPC where no frame of HTTP/2 is needed: responses of the gateway, deadlines, accounting."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import pytest
from support.running_gateway import Response, RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream

from gateway.http.grpc import (
    encode_message,
    is_grpc,
    read_status,
    read_timeout,
    render_timeout,
    status_for,
)

CALL = (
    "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {type}\r\n{fields}Content-Length: 5\r\n\r\n"
)


async def call(
    gateway: RunningGateway, path: str, fields: str = "", content_type: str = "application/grpc"
) -> Response:
    client = await gateway.connect()
    head = CALL.format(path=path, fields=fields, type=content_type)
    await client.send(head.encode() + b"\0\0\0\0\0")
    return await client.read_response()


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcx", False),
        (b"application/json", False),
    ],
)
def test_content_types(content_type: bytes, expected: bool) -> None:
    assert is_grpc(content_type) is expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9)],
)
def test_timeouts_are_read(value: bytes, seconds: float) -> None:
    assert read_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1s", b"1S "])
def test_malformed_timeouts_are_none(value: bytes) -> None:
    assert read_timeout(value) is None


@pytest.mark.parametrize("seconds", [-1, 0, 1e-9, 0.5, 9.99, 10, 35_999, 36_000, 1e9])
def test_rendered_timeouts_are_never_longer_nor_zero(seconds: float) -> None:
    rendered = read_timeout(render_timeout(seconds))
    assert rendered is not None
    assert 0 < rendered <= max(seconds, 1e-6)


@pytest.mark.parametrize("text", ["plain", "100 % sure", "näh\r\nGrpc-Status: 0", "\0\x7f", "~ !"])
def test_messages_hold_visible_ascii_and_can_be_decoded(text: str) -> None:
    encoded = encode_message(text)
    assert all(" " <= letter <= "~" for letter in encoded)
    assert unquote(encoded) == text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"grpc-status", b"14")], 14),
        ([(b"Grpc-Status", b"0"), (b"x", b"y")], 0),
        ([(b"grpc-status", b"-1")], 2),
        ([(b"grpc-status", b"many")], 2),
        ([], -1),
    ],
)
def test_status_is_read(fields: list[tuple[bytes, bytes]], status: int) -> None:
    assert read_status(fields) == status


def test_each_status_of_http_has_one() -> None:
    expected = {
        401: 16, 403: 7, 404: 12, 405: 12, 501: 12, 413: 8, 429: 8, 431: 8, 502: 14, 503: 14,
        504: 4, 400: 13, 500: 13, 418: 2,
    }  # fmt: skip
    assert {status: status_for(status) for status in expected} == expected


REFUSED: dict[str, Any] = {
    "routes": [
        {"name": "api", "match": {"path": "/pkg.Api"}, "upstream": "main"},
        {
            "name": "admin",
            "match": {"path": "/pkg.Api/Admin"},
            "upstream": "main",
            "scopes": ["orders:write"],
        },
        {
            "name": "gone",
            "match": {"path": "/pkg.Gone"},
            "auth": "none",
            "respond": {"status": 503, "body": "moved"},
        },
        {"name": "down", "match": {"path": "/pkg.Down"}, "auth": "none", "upstream": "down"},
        {
            "name": "few",
            "match": {"path": "/pkg.Few"},
            "upstream": "main",
            "auth": "none",
            "rate_limit": {"requests": 1, "per": "1h"},
        },
    ],
    "upstreams": {
        "main": {"targets": ["http://127.0.0.1:9"]},
        "down": {"targets": ["http://127.0.0.1:9"], "retries": {"attempts": 0}},
    },
}


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/pkg.Api/Read", 16, "missing"),
        ("/nothing/Here", 12, "no_route"),
        ("/pkg.Gone/Call", 14, "fixed_response"),
        ("/pkg.Down/Call", 14, "upstream_connect_failed"),
    ],
)
async def test_what_the_gateway_refuses_has_a_status_of_grpc(
    start: StartGateway, path: str, status: int, reason: str
) -> None:
    gateway = await start("", **REFUSED)
    response = await call(gateway, path)
    assert (response.status, response.body) == (200, b"")
    assert response.header("content-type") == "application/grpc"
    assert response.header("grpc-status") == str(status)
    assert unquote(response.header("grpc-message") or "")
    [line] = await gateway.logged(1)
    assert (line["status"], line["grpc_status"], line["reason"]) == (200, status, reason)
    route = line["route"]
    labels = {"route": route, "grpc_status": str(status)}
    assert await gateway.metric("gateway_grpc_calls_total", **labels) == 1


async def test_challenges_and_quotas_stay_metadata(start: StartGateway) -> None:
    gateway = await start("", **REFUSED)
    response = await call(gateway, "/pkg.Api/Read")
    assert (response.header("www-authenticate") or "").startswith("Bearer")
    await call(gateway, "/pkg.Few/Call")
    response = await call(gateway, "/pkg.Few/Call")
    assert response.header("grpc-status") == "8"
    assert response.header("retry-after")


async def test_scopes_hold_for_each_method(start: StartGateway, upstream: RawUpstream) -> None:
    sections = REFUSED | {"upstreams": {"main": {"targets": [upstream.url]}, "down": {
        "targets": [upstream.url]}}}  # fmt: skip
    gateway = await start("", **sections)
    token = await gateway.token()
    fields = f"Authorization: Bearer {token}\r\n"
    assert (await call(gateway, "/pkg.Api/Read", fields)).body == b"ok"
    response = await call(gateway, "/pkg.Api/Admin", fields)
    assert response.header("grpc-status") == "7"


@pytest.mark.parametrize("content_type", ["application/grpc-web+proto", "application/proto"])
async def test_grpc_web_and_connect_get_plain_http(start: StartGateway, content_type: str) -> None:
    gateway = await start("", **REFUSED)
    response = await call(gateway, "/pkg.Api/Read", content_type=content_type)
    assert response.status == 401
    assert response.header("content-type") == "application/problem+json"
    assert response.header("grpc-status") is None


@pytest.mark.parametrize("content_type", ["application/grpc-web+proto", "application/proto"])
async def test_grpc_web_and_connect_pass(
    start: StartGateway, upstream: RawUpstream, content_type: str
) -> None:
    body = b"\0\0\0\0\x03abc\x80\0\0\0\x0fgrpc-status:0\r\n"
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (received.all(b"content-type")[0], len(body), body)
    )
    gateway = await start(upstream.url)
    fields = "Connect-Protocol-Version: 1\r\nX-Grpc-Web: 1\r\n"
    response = await call(gateway, "/public", fields, content_type)
    assert response.body == body
    [received] = upstream.requests
    assert received.body == b"\0\0\0\0\0"
    assert received.all(b"x-grpc-web") == received.all(b"connect-protocol-version") == [b"1"]


async def test_deadline_of_the_client_is_passed_on_reduced(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url)
    await call(gateway, "/public", "Grpc-Timeout: 20S\r\n")
    await call(gateway, "/public", "Grpc-Timeout: soon\r\n")
    first, second = upstream.requests
    [value] = first.all(b"grpc-timeout")
    left_s = read_timeout(value)
    assert left_s is not None
    assert 0 < left_s < 20
    assert second.all(b"grpc-timeout") == []


async def test_deadline_of_the_client_ends_the_call(start: StartGateway) -> None:
    held = asyncio.Event()

    async def hold(conversation: Conversation, upstream: RawUpstream) -> None:
        received = await conversation.read_head()
        assert received is not None
        held.set()
        await conversation.reader.read()

    async with RawUpstream(script=hold) as upstream:
        gateway = await start(upstream.url)
        response = await call(gateway, "/public", "Grpc-Timeout: 300m\r\n")
        assert held.is_set()
        assert response.header("grpc-status") == "4"
        [line] = await gateway.logged(1)
        assert line["reason"] == "upstream_total_timeout"
