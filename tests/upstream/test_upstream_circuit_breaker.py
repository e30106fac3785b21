"""Circuit breakers: what is held back above the limits of an upstream, and how it recovers."""

from __future__ import annotations

import asyncio
from typing import Any

from support.deadlines import until, within
from support.protocols import each_protocol, only_http1_upstream
from support.running_gateway import RawClient, RunningGateway, StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream

from gateway.app.build.upstreams import build_upstreams
from gateway.config import parse_config
from gateway.metrics import Metrics

pytestmark = each_protocol

GET = b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n"


class RequestFilter:
    """A script that answers only when it is told to."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.heads = 0

    async def __call__(self, conversation: Conversation, upstream: RawUpstream) -> None:
        while await conversation.read_head() is not None:
            self.heads += 1
            await self.is_open.wait()
            await conversation.send(OK)


def main(*targets: str, breaker: dict[str, int], **settings: Any) -> dict[str, Any]:
    # A slow machine must not make waiting for a connection end in between.
    timeouts = {"timeouts": {"connect": "1m"}}
    return {"main": {"targets": list(targets), "circuit_breaker": breaker} | timeouts | settings}


async def send_many(gateway: RunningGateway, count: int) -> list[RawClient]:
    clients = []
    for _ in range(count):
        clients.append(await gateway.connect())
        await clients[-1].send(GET)
    return clients


async def overflows(gateway: RunningGateway, breaker: str) -> float:
    return await gateway.metric(
        "gateway_upstream_overflows_total", upstream="main", breaker=breaker
    )


async def is_open(gateway: RunningGateway, breaker: str) -> float:
    return await gateway.metric("gateway_upstream_breaker_open", upstream="main", breaker=breaker)


@only_http1_upstream
async def test_requests_above_max_connections_wait_for_a_connection(start: StartGateway) -> None:
    request_filter = RequestFilter()
    async with RawUpstream(script=request_filter) as upstream:
        gateway = await start("", upstreams=main(upstream.url, breaker={"max_connections": 2}))
        clients = await send_many(gateway, 6)
        await until(lambda: request_filter.heads == 2)
        async with within():
            while await overflows(gateway, "max_connections") != 4:
                await asyncio.sleep(0.02)
        assert await is_open(gateway, "max_connections") == 1
        sample = "gateway_upstream_requests"
        assert await gateway.metric(sample, upstream="main", state="pending") == 4
        request_filter.is_open.set()
        for client in clients:
            assert (await client.read_response()).status == 200
        assert upstream.connections == 2
        assert await gateway.metric(sample, upstream="main", state="pending") == 0


async def test_idle_connection_to_another_target_makes_room(start: StartGateway) -> None:
    async with RawUpstream() as one, RawUpstream() as two:
        gateway = await start("", upstreams=main(one.url, two.url, breaker={"max_connections": 1}))
        for _ in range(6):
            async with gateway.session.get(gateway.url("/public")) as response:
                assert response.status == 200
        assert (len(one.requests), len(two.requests)) == (3, 3)


@only_http1_upstream
async def test_request_above_max_pending_requests_is_503_at_once(start: StartGateway) -> None:
    request_filter = RequestFilter()
    async with RawUpstream(script=request_filter) as upstream:
        limits = {"max_connections": 1, "max_pending_requests": 2}
        gateway = await start("", upstreams=main(upstream.url, breaker=limits))
        first = await send_many(gateway, 1)
        await until(lambda: request_filter.heads == 1)
        waiting = await send_many(gateway, 2)
        async with within():
            while await is_open(gateway, "max_pending_requests") != 1:
                await asyncio.sleep(0.02)
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            assert (await response.json())["reason"] == "upstream_max_pending_requests"
        assert await overflows(gateway, "max_pending_requests") == 1
        request_filter.is_open.set()
        for client in first + waiting:
            assert (await client.read_response()).status == 200
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 200
        assert await is_open(gateway, "max_pending_requests") == 0


async def test_request_above_max_requests_is_503_until_one_ends(start: StartGateway) -> None:
    request_filter = RequestFilter()
    async with RawUpstream(script=request_filter) as upstream:
        gateway = await start("", upstreams=main(upstream.url, breaker={"max_requests": 3}))
        clients = await send_many(gateway, 3)
        await until(lambda: request_filter.heads == 3)
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 503
            assert (await response.json())["reason"] == "upstream_max_requests"
        assert await overflows(gateway, "max_requests") == 1
        request_filter.is_open.set()
        for client in clients:
            assert (await client.read_response()).status == 200
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 200


@only_http1_upstream
async def test_request_waits_no_longer_than_connecting_may_take(start: StartGateway) -> None:
    request_filter = RequestFilter()
    async with RawUpstream(script=request_filter) as upstream:
        gateway = await start(
            "",
            upstreams=main(
                upstream.url, breaker={"max_connections": 1}, timeouts={"connect": "200ms"}
            ),
        )
        (first,) = await send_many(gateway, 1)
        await until(lambda: request_filter.heads == 1)
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 503
        sample = "gateway_upstream_target_up"
        assert await gateway.metric(sample, upstream="main", target=upstream.url) == 1
        request_filter.is_open.set()
        assert (await first.read_response()).status == 200


@only_http1_upstream
async def test_client_that_leaves_while_it_waits_leaves_the_queue(start: StartGateway) -> None:
    request_filter = RequestFilter()
    async with RawUpstream(script=request_filter) as upstream:
        gateway = await start("", upstreams=main(upstream.url, breaker={"max_connections": 1}))
        (first,) = await send_many(gateway, 1)
        await until(lambda: request_filter.heads == 1)
        leaving, staying = await send_many(gateway, 2)
        async with within():
            while await overflows(gateway, "max_connections") != 2:
                await asyncio.sleep(0.02)
        leaving.writer.transport.abort()
        await gateway.logged(1)
        request_filter.is_open.set()
        for client in (first, staying):
            assert (await client.read_response()).status == 200
        assert request_filter.heads == 2


async def test_connections_that_fail_are_not_counted_for_ever(start: StartGateway) -> None:
    async def hang_up(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()

    async with RawUpstream(script=hang_up) as upstream:
        gateway = await start("", upstreams=main(upstream.url, breaker={"max_connections": 2}))
        for _ in range(10):
            async with gateway.session.get(gateway.url("/public")) as response:
                assert response.status == 502
        for _ in range(4):
            (client,) = await send_many(gateway, 1)
            await client.close()
        await gateway.logged(14)
        await until(lambda: upstream.open_connections == 0)
        upstream.script = None
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 200
        sample = "gateway_upstream_connections"
        assert await gateway.metric(sample, upstream="main", state="idle") == 1
        assert await gateway.metric(sample, upstream="main", state="active") == 0


async def test_limits_are_shared_out_among_the_workers() -> None:
    text = """
        workers: 4
        upstreams:
          a: {targets: ["http://127.0.0.1:1"]}
          b:
            targets: ["http://127.0.0.1:1"]
            circuit_breaker: {max_connections: 2, max_retries: 5}
        provider: {registration: {mode: off}}
    """
    upstreams = build_upstreams(parse_config(text, file="g.yaml"), Metrics())
    assert upstreams["a"].breaker.limits.max_connections == 256
    assert upstreams["b"].breaker.limits.max_connections == 1
    assert upstreams["b"].retries.max_retries == 2
