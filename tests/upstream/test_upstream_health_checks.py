"""Active health checks, against real servers that fall ill and get well."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.deadlines import duration, until, within
from support.protocols import both_upstream_protocols
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream, Received

from gateway.app.build.upstreams import build_upstreams
from gateway.config import parse_config
from gateway.metrics import Metrics
from gateway.upstream.upstream import Upstream

pytestmark = both_upstream_protocols

ILL = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
FAST = {"path": "/healthz", "interval": "20ms", "timeout": duration(5)}


def main(*targets: str, **settings: Any) -> dict[str, Any]:
    return {"main": {"targets": list(targets), "health_check": FAST | settings}}


def is_check(received: Received) -> bool:
    return received.request_line == b"GET /healthz HTTP/1.1"


def checks(upstream: RawUpstream) -> list[Received]:
    return [received for received in upstream.requests if is_check(received)]


async def unhealthy(gateway: RunningGateway, count: int) -> None:
    async with within():
        while await gateway.metric("gateway_upstream_unhealthy", upstream="main") != count:
            await asyncio.sleep(0.02)


async def fetch(gateway: RunningGateway) -> int:
    async with gateway.session.get(gateway.url("/public")) as response:
        await response.read()
        return response.status


async def test_endpoint_that_fails_its_checks_gets_no_requests_until_it_is_well(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with RawUpstream() as ill:
        ill.respond = lambda received: ILL if is_check(received) else OK
        gateway = await start("", upstreams=main(ill.url, upstream.url))
        await unhealthy(gateway, 1)
        before = len(ill.requests) - len(checks(ill))
        for _ in range(6):
            assert await fetch(gateway) == 200
        assert len(ill.requests) - len(checks(ill)) == before
        sample = "gateway_upstream_target_up"
        assert await gateway.metric(sample, upstream="main", target=ill.url) == 0
        ill.respond = lambda received: OK
        await unhealthy(gateway, 0)
        for _ in range(6):
            assert await fetch(gateway) == 200
        assert len(ill.requests) - len(checks(ill)) == before + 3
        for result in ("ok", "failed"):
            sample = "gateway_upstream_health_checks_total"
            assert await gateway.metric(sample, upstream="main", result=result) > 0


async def test_thresholds_count_checks_in_a_row(upstream: RawUpstream) -> None:
    checked = build(upstream.url)
    (endpoint,) = checked.endpoints
    seen: list[bool] = []

    def respond(received: Received) -> bytes:
        seen.append(endpoint.is_healthy)
        # Two failures in a row, again and again: one less than takes it out.
        return OK if len(seen) % 3 == 0 else ILL

    upstream.respond = respond
    checked.start()
    await until(lambda: len(seen) > 20)
    await checked.stop()
    assert all(seen)


@pytest.mark.parametrize("trouble", ["dead", "hangs", "hangs up", "nonsense"])
async def test_no_response_is_no_health(
    start: StartGateway, upstream: RawUpstream, trouble: str
) -> None:
    async def fail(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        if trouble == "hangs":
            await conversation.reader.read()
        elif trouble == "nonsense":
            await conversation.send(b"what?\r\n\r\n")

    async with RawUpstream(script=fail) as ill:
        if trouble == "dead":
            await ill.stop()
        gateway = await start("", upstreams=main(ill.url, upstream.url, timeout=duration(0.5)))
        await unhealthy(gateway, 1)
        assert [await fetch(gateway) for _ in range(4)] == [200] * 4


async def test_expected_statuses_and_host_are_the_configured_ones(
    start: StartGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 204 No Content\r\n\r\n" if is_check(received) else OK
    )
    settings = main(upstream.url, expected_statuses=["200-299"], host="shop.example")
    gateway = await start("", upstreams=settings)
    await until(lambda: len(checks(upstream)) > 5)
    assert await gateway.metric("gateway_upstream_unhealthy", upstream="main") == 0
    assert checks(upstream)[0].all(b"host") == [b"shop.example"]
    gateway = await start("", upstreams=main(upstream.url))
    await unhealthy(gateway, 1)


async def test_where_all_are_unhealthy_they_are_used_all_the_same(start: StartGateway) -> None:
    async with RawUpstream() as one, RawUpstream() as two:
        for upstream in (one, two):
            upstream.respond = lambda received: ILL if is_check(received) else OK
        gateway = await start("", upstreams=main(one.url, two.url))
        await unhealthy(gateway, 2)
        assert [await fetch(gateway) for _ in range(4)] == [200] * 4


async def test_checks_end_with_the_upstream(upstream: RawUpstream) -> None:
    checked = build(upstream.url)
    checked.start()
    await until(lambda: len(upstream.requests) > 3)
    await checked.stop()
    await until(lambda: upstream.open_connections == 0)
    seen = len(upstream.requests)
    await asyncio.sleep(0.1)  # ten intervals in which nothing may come
    assert len(upstream.requests) == seen


def build(url: str) -> Upstream:
    """An upstream of one target, checked every 10 ms."""
    text = f"""
        upstreams:
          main: {{targets: ["{url}"], health_check: {{path: /healthz, interval: 10ms}}}}
        provider: {{registration: {{mode: off}}}}
    """
    return build_upstreams(parse_config(text, file="g.yaml"), Metrics())["main"]
