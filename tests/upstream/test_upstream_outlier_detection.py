"""Endpoints that fail requests are ejected for a while, and never the last one."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from support.deadlines import duration, until, within
from support.protocols import both_upstream_protocols
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream

from gateway.metrics import Histogram
from gateway.upstream.outlier_detection import FailureCounts
from gateway.upstream.settings import OutlierDetection, UpstreamTimeouts
from gateway.upstream.status import describe_upstream
from gateway.upstream.target import Target
from gateway.upstream.upstream import Upstream

pytestmark = both_upstream_protocols

FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


def main(*targets: str, **settings: Any) -> dict[str, Any]:
    return {"main": {"targets": list(targets), **settings}}


async def fetch(gateway: RunningGateway) -> int:
    async with gateway.session.get(gateway.url("/public")) as response:
        await response.read()
        return response.status


async def ejections(gateway: RunningGateway, reason: str) -> float:
    return await gateway.metric("gateway_upstream_ejections_total", upstream="main", reason=reason)


async def test_endpoint_that_returns_5xx_five_times_in_a_row_is_ejected(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with RawUpstream(respond=lambda received: FAILED) as bad:
        gateway = await start("", upstreams=main(bad.url, upstream.url, outlier_detection={}))
        statuses = [await fetch(gateway) for _ in range(20)]
        assert statuses.count(500) == 5
        assert statuses[-10:] == [200] * 10
        assert await ejections(gateway, "consecutive_5xx") == 1
        assert await gateway.metric("gateway_upstream_ejected", upstream="main") == 1
        sample = "gateway_upstream_target_up"
        assert await gateway.metric(sample, upstream="main", target=bad.url) == 0


async def test_a_good_response_resets_the_count(start: StartGateway, upstream: RawUpstream) -> None:
    async with RawUpstream() as flaky:
        flaky.respond = lambda received: FAILED if len(flaky.requests) % 4 else OK
        gateway = await start("", upstreams=main(flaky.url, upstream.url, outlier_detection={}))
        for _ in range(40):
            await fetch(gateway)
        assert len(flaky.requests) == 20
        assert await ejections(gateway, "consecutive_5xx") == 0


async def test_without_outlier_detection_no_endpoint_is_ejected(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with RawUpstream(respond=lambda received: FAILED) as bad:
        gateway = await start("", upstreams=main(bad.url, upstream.url))
        assert [await fetch(gateway) for _ in range(20)].count(500) == 10


@pytest.mark.parametrize("trouble", ["hangs", "hangs up", "cuts off"])
async def test_no_response_counts_as_a_failure(
    start: StartGateway, upstream: RawUpstream, trouble: str
) -> None:
    async def fail(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        upstream.broken_bodies += 1
        if trouble == "hangs":
            await conversation.reader.read()
        elif trouble == "cuts off":
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

    async with RawUpstream(script=fail) as bad:
        gateway = await start(
            "",
            upstreams=main(
                bad.url,
                upstream.url,
                outlier_detection={"consecutive_5xx": 3},
                timeouts={"response_head": duration(0.3)},
            ),
        )
        for _ in range(12):
            client = await gateway.connect()
            await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            await client.read_to_end()
        await until(lambda: bad.broken_bodies == 3)
        assert await ejections(gateway, "consecutive_5xx") == 1


async def test_gateway_failures_have_a_count_of_their_own(
    start: StartGateway, upstream: RawUpstream
) -> None:
    detection = {"consecutive_5xx": 0, "consecutive_gateway_failures": 2}
    async with RawUpstream(respond=lambda received: FAILED) as bad:
        gateway = await start(
            "", upstreams=main(bad.url, upstream.url, outlier_detection=detection)
        )
        assert [await fetch(gateway) for _ in range(12)].count(500) == 6
        bad.respond = lambda received: BAD_GATEWAY
        assert [await fetch(gateway) for _ in range(12)].count(502) == 2
        assert await ejections(gateway, "consecutive_gateway_failure") == 1


async def test_last_endpoint_is_never_ejected(start: StartGateway) -> None:
    async with (
        RawUpstream(respond=lambda received: FAILED) as one,
        RawUpstream(respond=lambda received: FAILED) as two,
    ):
        gateway = await start(
            "",
            upstreams=main(one.url, two.url, outlier_detection={"max_ejection_percent": 100}),
        )
        assert [await fetch(gateway) for _ in range(40)] == [500] * 40
        assert await ejections(gateway, "consecutive_5xx") == 1
        assert await gateway.metric("gateway_upstream_ejected", upstream="main") == 1
    async with RawUpstream(respond=lambda received: FAILED) as single:
        gateway = await start("", upstreams=main(single.url, outlier_detection={}))
        assert [await fetch(gateway) for _ in range(10)] == [500] * 10
        assert await ejections(gateway, "consecutive_5xx") == 0


async def test_ejected_endpoint_comes_back_on_time(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with RawUpstream(respond=lambda received: FAILED) as bad:
        detection = {"consecutive_5xx": 1, "base_ejection_time": "300ms"}
        gateway = await start(
            "", upstreams=main(bad.url, upstream.url, outlier_detection=detection)
        )
        assert sorted([await fetch(gateway), await fetch(gateway)]) == [200, 500]
        bad.respond = lambda received: OK
        assert len(bad.requests) == 1
        async with within():
            while len(bad.requests) == 1:
                assert await fetch(gateway) == 200
                await asyncio.sleep(0.02)


def make_upstream(count: int, policy: OutlierDetection) -> Upstream:
    targets = [
        Target(f"http://127.0.0.1:{port}", UpstreamTimeouts()) for port in range(1, count + 1)
    ]
    return Upstream("u", targets, durations=Histogram(), outliers=policy)


async def test_no_more_than_a_part_of_the_endpoints_is_ejected() -> None:
    for count, percent, expected in ((10, 10, 1), (10, 30, 3), (5, 10, 1), (4, 100, 3), (2, 10, 1)):
        upstream = make_upstream(
            count, OutlierDetection(consecutive_5xx=1, max_ejection_percent=percent)
        )
        for endpoint in upstream.endpoints:
            endpoint.responded(500)
        states = describe_upstream(upstream).endpoints
        assert sum(not state.is_up for state in states) == expected, (count, percent)
        await upstream.stop()


async def test_state_reports_why_an_endpoint_is_down_and_for_how_long() -> None:
    upstream = make_upstream(2, OutlierDetection())
    for _ in range(5):
        upstream.endpoints[0].responded(503)
    ejected, up = describe_upstream(upstream).endpoints
    assert (ejected.is_up, ejected.reason, ejected.ejections) == (False, "consecutive_5xx", 1)
    assert 0 < ejected.seconds_left <= 30
    assert (up.is_up, up.reason, up.seconds_left) == (True, "", 0)
    await upstream.stop()


def test_each_further_ejection_lasts_longer_and_quiet_times_forgive() -> None:
    counts = FailureCounts(OutlierDetection())
    assert counts.eject(1000) == 1030
    assert counts.eject(1030) == 1090  # twice as long
    assert counts.eject(1090 + 9.9) == 1099.9 + 90
    assert counts.eject(1189.9 + 20) == 1209.9 + 60  # two intervals forgave two
    for _ in range(20):
        end = counts.eject(2000)
    assert end == 2300


async def test_targets_that_cannot_be_reached_are_distinguished_from_ejected_ones(
    start: StartGateway, upstream: RawUpstream
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
        gateway = await start("", upstreams=main(dead, upstream.url, outlier_detection={}))
        assert [await fetch(gateway) for _ in range(10)] == [200] * 10
        assert await ejections(gateway, "connect_failure") == 1
        assert await gateway.metric("gateway_upstream_ejected", upstream="main") == 0
