"""Rate limits on the wire: 429, and what every response tells."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from support.processes.redis import RedisServer
from support.protocols import both_protocols
from support.running_gateway import ADMIN_TOKEN, RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

pytestmark = both_protocols

# Nothing becomes free while a test runs.
THREE = {"requests": 3, "per": "3d"}
FIVE = {"requests": 5, "per": "5d"}


async def get(
    gateway: RunningGateway, path: str = "/api", token: str | None = None
) -> aiohttp.ClientResponse:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        await response.read()
        return response


def reported(response: aiohttp.ClientResponse) -> tuple[int, list[str | None]]:
    """The status, and limit, remaining, reset and Retry-After."""
    names = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After")
    return response.status, [response.headers.get(name) for name in names]


def routes(**limits: Any) -> list[dict[str, Any]]:
    return [
        {"name": "api", "match": {"path": "/api"}, "upstream": "main", **limits},
        {"name": "public", "match": {"path": "/public"}, "upstream": "main", "auth": "none"},
    ]


async def test_route_limits_each_client_for_itself(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=routes(rate_limit=THREE))
    shop, other = await gateway.token("shop"), await gateway.token("other")
    day = 86400
    for left in (2, 1, 0):
        expected = ["3", str(left), str(day * (3 - left)), None]
        assert reported(await get(gateway, token=shop)) == (200, expected)
    refused = await get(gateway, token=shop)
    assert reported(refused) == (429, ["3", "0", str(3 * day), str(day)])
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert (await get(gateway, token=other)).status == 200
    assert reported(await get(gateway, "/public")) == (200, [None] * 4)
    assert len(upstream.requests) == 5, "what is refused never reaches the upstream"
    assert await gateway.metric("gateway_rate_limit_decisions_total", result="limited") == 1
    assert await gateway.metric("gateway_rate_limit_decisions_total", result="allowed") == 4
    log = await gateway.logged(10)
    assert any((line["status"], line.get("reason")) == (429, "rate_limited") for line in log)


async def test_route_can_limit_all_clients_together(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=routes(rate_limit=THREE | {"by": "route"}))
    shop, other = await gateway.token("shop"), await gateway.token("other")
    statuses = [(await get(gateway, token=token)).status for token in (shop, other, shop, other)]
    assert statuses == [200, 200, 200, 429]


async def test_limit_of_all_routes_counts_clients_and_addresses(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=routes(rate_limit=FIVE), rate_limit=THREE)
    token = await gateway.token()
    assert reported(await get(gateway, token=token))[1][:2] == ["3", "2"], "the tightest is told"
    statuses = [(await get(gateway, token=token)).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    statuses = [(await get(gateway, "/public")).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429], "without a token, the address is counted"


async def test_client_can_have_a_limit_of_its_own(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, rate_limit=THREE)
    token = await gateway.token("shop")
    assert (await get(gateway, token=token)).headers["RateLimit-Limit"] == "3"
    async with gateway.session.put(
        gateway.admin_url("/api/v1/clients/shop/rate-limit"),
        json={"requests": 1000, "per_seconds": 86400},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status == 200
    response = await get(gateway, token=token)
    assert response.headers["RateLimit-Limit"] == "1000"
    statuses = [(await get(gateway, token=token)).status for _ in range(10)]
    assert set(statuses) == {200}


async def test_fields_of_the_upstream_are_replaced(
    start: StartGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nratelimit-limit: 99\r\nRateLimit-Policy: x\r\n"
        b"Retry-After: 7\r\nContent-Length: 2\r\n\r\nok"
    )
    gateway = await start(upstream.url, routes=routes(rate_limit=THREE))
    limited = await get(gateway, token=await gateway.token())
    assert limited.headers.getall("RateLimit-Limit") == ["3"]
    assert limited.headers["RateLimit-Policy"] == "x"
    assert limited.headers["Retry-After"] == "7"
    free = await get(gateway, "/public")
    assert free.headers.getall("RateLimit-Limit") == ["99"]


async def test_rejection_above_the_limit_reports_what_is_left(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start("http://127.0.0.1:9", routes=routes(rate_limit=THREE))
    token = await gateway.token()
    assert reported(await get(gateway, token=token)) == (502, ["3", "2", "86400", None])


async def test_refused_token_is_not_counted(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(upstream.url, routes=routes(rate_limit=THREE))
    for _ in range(5):
        assert reported(await get(gateway, token="made-up")) == (401, [None] * 4)
    assert (await get(gateway, token=await gateway.token())).headers["RateLimit-Remaining"] == "2"


async def test_body_of_a_request_that_is_refused_does_not_disturb_the_next_one(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=routes(rate_limit={"requests": 1, "per": "1d"}))
    token = await gateway.token()
    assert (await get(gateway, token=token)).status == 200
    async with gateway.session.post(
        gateway.url("/api"), data=b"x" * 100_000, headers={"Authorization": f"Bearer {token}"}
    ) as response:
        assert response.status == 429
    assert (await get(gateway, "/public")).status == 200


@pytest.mark.parametrize("is_away", [False, True])
async def test_fleet_shares_the_limit_until_redis_is_unavailable(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer, is_away: bool
) -> None:
    sections = {"store": redis_server.url, "routes": routes(rate_limit=FIVE)}
    fleet = [await start(upstream.url, **sections) for _ in range(2)]
    token = await fleet[0].token()
    # So that both have the token in their cache.
    assert (await get(fleet[0], token=token)).headers["RateLimit-Remaining"] == "4"
    assert (await get(fleet[1], token=token)).headers["RateLimit-Remaining"] == "3"
    if is_away:
        redis_server.kill()
    responses = await asyncio.gather(*(get(fleet[n % 2], token=token) for n in range(20)))
    passed = sum(response.status == 200 for response in responses)
    assert {response.status for response in responses} == {200, 429}
    assert passed == (10 if is_away else 3), "alone, each applies all of it"
    fallbacks = await fleet[0].metric("gateway_rate_limit_decisions_total", result="fallback")
    assert (fallbacks > 0) == is_away
