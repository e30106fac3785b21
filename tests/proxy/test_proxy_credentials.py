"""API keys where requests are not plain HTTP: gRPC, WebSockets, authorization checks."""

from __future__ import annotations

from typing import Any

from support.deadlines import until
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

KEYED: dict[str, Any] = {
    "name": "k",
    "match": {"path": "/k"},
    "upstream": "main",
    "credentials": ["api_key"],
}


async def make_key(gateway: RunningGateway) -> tuple[str, str]:
    await gateway.create_client("shop")
    _, key = await gateway.call_api("POST", "/api/v1/clients/shop/api-keys", {"name": "k"})
    return key["key_id"], key["api_key"]


async def test_authorization_check_knows_keys(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(
        upstream.url,
        routes=[KEYED],
        authz={
            "host": "127.0.0.1", "port": 0, "dialect": "nginx", "path": "/authz",
            "trusted_proxies": ["127.0.0.1"],
        },
    )  # fmt: skip
    _, value = await make_key(gateway)
    assert gateway.gateway.authz_address is not None
    url = f"http://127.0.0.1:{gateway.gateway.authz_address[1]}/authz"
    asked = {"X-Original-Method": "GET", "X-Original-URI": "/k/x", "Host": "h"}
    for fields, status, client in (
        ({}, 401, None),
        ({"X-API-Key": value}, 200, "shop"),
        ({"X-API-Key": "x"}, 401, None),
    ):
        async with gateway.session.get(url, headers=asked | fields) as response:
            assert (response.status, response.headers.get("X-Client-Id")) == (status, client)


async def test_grpc_call_without_a_key_is_unauthenticated(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=[KEYED])
    _, value = await make_key(gateway)
    fields = {"Content-Type": "application/grpc", "TE": "trailers"}
    async with gateway.session.post(gateway.url("/k"), headers=fields) as response:
        assert (response.status, response.headers["Grpc-Status"]) == (200, "16")
        assert "API key is missing" in response.headers["Grpc-Message"]
    metadata = fields | {"x-api-key": value}
    async with gateway.session.post(gateway.url("/k"), headers=metadata) as response:
        assert response.status == 200
    assert upstream.requests[-1].all(b"x-client-id") == [b"shop"]
    assert upstream.requests[-1].all(b"x-api-key") == []


async def test_key_is_not_copied_to_a_mirror_or_in_other_spellings(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with RawUpstream() as shadow:
        gateway = await start(
            upstream.url,
            upstreams={"main": {"targets": [upstream.url]}, "shadow": {"targets": [shadow.url]}},
            routes=[KEYED | {"mirror": {"upstream": "shadow", "percent": 100}}],
        )
        _, value = await make_key(gateway)
        response = await gateway.send(
            b"GET /k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
            b"X-Api-Key: %b\r\nX_Api_Key: %b\r\n\r\n" % (value.encode(), value.encode())
        )
        assert response.startswith(b"HTTP/1.1 200 ")
        await until(lambda: len(shadow.requests) == 1)
        for received in (*upstream.requests, *shadow.requests):
            assert received.all(b"x-client-id") == [b"shop"]
            assert value.encode() not in [field for _, field in received.headers]
