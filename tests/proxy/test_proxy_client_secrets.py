"""Routes that check the id and secret of a client on each request: Mule's client-id enforcement."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import until
from support.protocols import both_protocols, only_http1
from support.running_gateway import RunningGateway, StartGateway, basic
from support.servers.raw_upstream import RawUpstream

from gateway.oauth.credentials import SecretHasher

pytestmark = both_protocols

RIGHT = [("client_id", "shop"), ("client_secret", "secret")]


def route(name: str, **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"path": f"/{name}"},
        "upstream": "main",
        "credentials": ["client_secret"],
    } | settings


ROUTES = [
    route("header", scopes=["orders:read"]),
    route("query", client_secret={"sent_in": ["query"], "id_name": "id", "secret_name": "key"}),
    route("basic", client_secret={"sent_in": ["basic", "header"]}),
    route("shown", forward_credentials=True),
    route("any", credentials=["bearer", "api_key", "client_secret"]),
]


@pytest.fixture
async def enforcing(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    gateway = await start(upstream.url, routes=ROUTES)
    await gateway.create_client("shop")
    return gateway


async def status_of(
    gateway: RunningGateway, path: str, fields: list[tuple[str, str]] | dict[str, str]
) -> int:
    async with gateway.session.get(gateway.url(path), headers=fields) as response:
        await response.read()
        return response.status


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The secrets that were hashed."""
    seen: list[str] = []
    verify = SecretHasher._verify

    def note(self: SecretHasher, secret: str, secret_hash: str) -> bool:
        seen.append(secret)
        return verify(self, secret, secret_hash)

    monkeypatch.setattr(SecretHasher, "_verify", note)
    return seen


async def test_right_secret_passes_with_the_identity_and_is_hashed_once(
    enforcing: RunningGateway, upstream: RawUpstream, hashed: list[str]
) -> None:
    for _ in range(3):
        assert await status_of(enforcing, "/header/x", RIGHT) == 200
    assert hashed == ["secret"]
    received = upstream.requests[-1]
    assert received.all(b"x-client-id") == [b"shop"]
    assert received.all(b"client_id") == received.all(b"client_secret") == []
    assert await status_of(enforcing, "/shown", RIGHT) == 200
    assert upstream.requests[-1].all(b"client_secret") == [b"secret"]
    assert await status_of(enforcing, "/any", RIGHT) == 200
    assert hashed == ["secret"], "what is cached is what the pair is, not what it may do"


async def test_secret_in_the_query_is_neither_forwarded_nor_logged(
    enforcing: RunningGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    assert await status_of(enforcing, "/query/x?a=1&id=shop&key=secret&b=%20", []) == 200
    assert upstream.requests[-1].request_line == b"GET /query/x?a=1&b=%20 HTTP/1.1"
    assert await status_of(enforcing, "/query/x?%69d=shop&k%65y=secret", []) == 200
    assert upstream.requests[-1].request_line == b"GET /query/x HTTP/1.1"
    assert await status_of(enforcing, "/query/x?id=shop&id=shop&key=secret", []) == 400
    assert await status_of(enforcing, "/query/x", RIGHT) == 401, "the route reads its query alone"

    def log() -> str:
        return (tmp_path / "access.log").read_text()

    await until(lambda: log().count("/query/x") == 4)
    assert "secret" not in log()


async def test_basic_credentials_pass_where_the_route_reads_them(
    enforcing: RunningGateway, upstream: RawUpstream
) -> None:
    assert await status_of(enforcing, "/basic", basic("shop", "secret")) == 200
    assert upstream.requests[-1].all(b"authorization") == []
    assert await status_of(enforcing, "/basic", RIGHT) == 200
    assert await status_of(enforcing, "/basic", [*basic("shop", "secret").items(), *RIGHT]) == 400
    assert await status_of(enforcing, "/header", basic("shop", "secret")) == 401
    async with enforcing.session.get(enforcing.url("/basic")) as response:
        assert response.headers.getall("WWW-Authenticate") == [
            'Client-ID-Enforcement realm="gateway"',
            'Basic realm="gateway", charset="UTF-8"',
        ]


async def test_wrong_secrets_are_limited_as_guesses_and_the_right_one_is_not_tried_then(
    start: StartGateway, upstream: RawUpstream, hashed: list[str]
) -> None:
    gateway = await start(
        upstream.url,
        routes=ROUTES,
        provider={"failed_client_limit": {"failures": 3}},
        cache={"negative_ttl": "1h"},
    )
    await gateway.create_client("shop")
    hashed.clear()
    guesses = [[("client_id", "shop"), ("client_secret", f"guess {n}")] for n in range(5)]
    statuses = [await status_of(gateway, "/header", guess) for guess in guesses]
    assert statuses == [401, 401, 401, 429, 429]
    assert len(hashed) == 3
    assert await status_of(gateway, "/header", guesses[0]) == 401, "known to be wrong"
    assert len(hashed) == 3
    assert await status_of(gateway, "/header", RIGHT) == 429
    assert upstream.requests == []


async def test_incomplete_or_unknown_credentials_are_rejected(
    enforcing: RunningGateway, upstream: RawUpstream
) -> None:
    for fields, status in (
        ([], 401),
        (RIGHT[:1], 401),
        (RIGHT[1:], 401),
        ([("client_id", "nobody"), ("client_secret", "secret")], 401),
        ([("client_id", "shop"), ("client_secret", "x" * 600)], 401),
        ([*RIGHT, RIGHT[1]], 400),
    ):
        assert await status_of(enforcing, "/header", fields) == status, fields
    assert upstream.requests == []


async def test_many_requests_with_a_new_pair_cost_one_hash(
    enforcing: RunningGateway, hashed: list[str]
) -> None:
    statuses = await asyncio.gather(*(status_of(enforcing, "/header", RIGHT) for _ in range(20)))
    assert statuses == [200] * 20
    assert hashed == ["secret"]


async def test_replaced_secret_is_rejected_here_at_once_and_elsewhere_within_a_second(
    start: StartGateway, upstream: RawUpstream
) -> None:
    here = await start(upstream.url, routes=ROUTES)
    there = await start(upstream.url, routes=ROUTES)
    await here.create_client("shop")
    for gateway in (here, there):
        assert await status_of(gateway, "/header", RIGHT) == 200
    _, rotated = await here.call_api("POST", "/api/v1/clients/shop/rotate", {})
    assert await status_of(here, "/header", RIGHT) == 401
    new = [("client_id", "shop"), ("client_secret", rotated["client_secret"])]
    assert await status_of(here, "/header", new) == 200

    async def is_rejected() -> bool:
        return await status_of(there, "/header", RIGHT) == 401

    await until(is_rejected)


@only_http1
async def test_scopes_and_clients_of_the_route_hold_for_the_client(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[
            route("write", scopes=["orders:write"]),
            route("own", clients=["other"]),
        ],
    )
    await gateway.call_api(
        "POST",
        "/api/v1/clients",
        {"client_id": "shop", "client_secret": "secret", "scope": "orders:read"},
    )
    assert await status_of(gateway, "/write", RIGHT) == 403
    assert await status_of(gateway, "/own", RIGHT) == 403
    await gateway.call_api("PATCH", "/api/v1/clients/shop", {"scope": "orders:write"})
    assert await status_of(gateway, "/write", RIGHT) == 200
    await gateway.call_api("DELETE", "/api/v1/clients/shop")
    assert await status_of(gateway, "/write", RIGHT) == 401


@only_http1
async def test_rejection_says_what_the_route_accepts(enforcing: RunningGateway) -> None:
    async with enforcing.session.get(enforcing.url("/any")) as response:
        problem = json.loads(await response.read())
    assert problem["detail"] == "The bearer token or API key or client id and secret is missing."


@only_http1
async def test_expired_client_is_reported_to_the_operator_and_good_again_once_renewed(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=ROUTES)
    await gateway.create_client("shop")
    clients = gateway.gateway._provider.store.clients
    await clients.set_client_expiry("shop", time.time() - 60)  # not so long ago that it is purged
    for _ in range(7):  # more than the limit on guesses
        async with gateway.session.get(gateway.url("/header"), headers=RIGHT) as response:
            assert (response.status, (await response.json())["reason"]) == (401, "client_expired")
    await clients.set_client_expiry("shop", None)
    assert await status_of(gateway, "/header", RIGHT) == 200
