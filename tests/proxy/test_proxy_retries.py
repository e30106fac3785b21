"""Second tries: what gets one, what never does, and how many there may be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from support.deadlines import duration, scaled, until
from support.protocols import each_protocol
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream

from gateway.upstream.retry_policy import RetryLimiter, RetryPolicy
from gateway.upstream.settings import Retries

pytestmark = each_protocol

BROKEN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ndown"
CHUNKED_BROKEN = (
    b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndown\r\n0\r\n\r\n"
)
ALL = ["connect-failure", "reset", "gateway-error"]


@contextmanager
def refusing() -> Iterator[str]:
    """The URL of a port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


async def hang_up(conversation: Conversation, upstream: RawUpstream) -> None:
    received = await conversation.read_head()
    if received is not None:
        upstream.requests.append(received)


async def say_nothing(conversation: Conversation, upstream: RawUpstream) -> None:
    received = await conversation.read_head()
    if received is not None:
        upstream.requests.append(received)
        await conversation.reader.read()


def main(*targets: str, **settings: Any) -> dict[str, Any]:
    return {"main": {"targets": list(targets), **settings}}


async def fetch(gateway: RunningGateway, method: str = "GET", body: bytes | None = None) -> int:
    async with gateway.session.request(method, gateway.url("/public"), data=body) as response:
        await response.read()
        return response.status


async def retries(gateway: RunningGateway, reason: str) -> float:
    return await gateway.metric("gateway_upstream_retries_total", upstream="main", reason=reason)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_request_whose_target_cannot_be_reached_goes_to_another(
    start: StartGateway, upstream: RawUpstream, method: str
) -> None:
    with refusing() as dead:
        gateway = await start("", upstreams=main(dead, upstream.url))
        body = b"all of it" if method == "POST" else None
        assert await fetch(gateway, method, body) == 200
        assert [request.body for request in upstream.requests] == [body or b""]
        assert await retries(gateway, "connect-failure") == 1


async def test_without_attempts_nothing_is_tried_again(
    start: StartGateway, upstream: RawUpstream
) -> None:
    with refusing() as dead:
        gateway = await start("", upstreams=main(dead, upstream.url, retries={"attempts": 0}))
        assert await fetch(gateway) == 502
        assert upstream.requests == []


async def test_attempts_end(start: StartGateway) -> None:
    with refusing() as dead:
        gateway = await start("", upstreams=main(dead, retries={"attempts": 3}))
        assert await fetch(gateway) == 502
        assert await retries(gateway, "connect-failure") == 3


@pytest.mark.parametrize("reply", [BROKEN, CHUNKED_BROKEN])
async def test_gateway_error_is_tried_again_elsewhere_and_never_seen(
    start: StartGateway, upstream: RawUpstream, reply: bytes
) -> None:
    async with RawUpstream(respond=lambda received: reply) as broken:
        gateway = await start(
            "", upstreams=main(broken.url, upstream.url, retries={"retry_on": ALL})
        )
        for _ in range(4):
            async with gateway.session.get(gateway.url("/public")) as response:
                assert (response.status, await response.text()) == (200, "ok")
        assert len(broken.requests) == 2
        assert await retries(gateway, "status") == 2


async def test_last_response_is_passed_on_when_every_try_failed(start: StartGateway) -> None:
    async with RawUpstream(respond=lambda received: BROKEN) as broken:
        gateway = await start(
            "", upstreams=main(broken.url, retries={"retry_on": ALL, "attempts": 2})
        )
        async with gateway.session.get(gateway.url("/public")) as response:
            assert (response.status, await response.text()) == (503, "down")
        assert len(broken.requests) == 3
        assert broken.connections == 1, "a whole response leaves its connection fit for another"


@pytest.mark.parametrize("script", [hang_up, say_nothing])
async def test_reset_or_silence_is_tried_again_where_asked_for(
    start: StartGateway, upstream: RawUpstream, script: Any
) -> None:
    async with RawUpstream(script=script) as bad:
        gateway = await start(
            "",
            upstreams=main(
                bad.url,
                upstream.url,
                retries={"retry_on": ["reset"]},
                timeouts={"response_head": duration(0.5)},
            ),
        )
        assert [await fetch(gateway) for _ in range(4)] == [200] * 4
        assert await retries(gateway, "reset") == len(bad.requests) == 2
        await until(lambda: bad.open_connections == 0)


@pytest.mark.parametrize(
    ("method", "body"), [("POST", b"x"), ("POST", None), ("PATCH", b"x"), ("PUT", b"x")]
)
@pytest.mark.parametrize("trouble", ["hang_up", "say_nothing", "503"])
async def test_request_that_may_have_had_an_effect_reaches_one_target_once(
    start: StartGateway, trouble: str, method: str, body: bytes | None
) -> None:
    async def read_and_fail(conversation: Conversation, upstream: RawUpstream) -> None:
        received = await conversation.read_head()
        assert received is not None
        await conversation.read_body(received)
        upstream.requests.append(received)
        if trouble == "503":
            await conversation.send(BROKEN)
        elif trouble == "say_nothing":
            await conversation.reader.read()

    async with RawUpstream(script=read_and_fail) as one, RawUpstream(script=read_and_fail) as two:
        gateway = await start(
            "",
            upstreams=main(
                one.url,
                two.url,
                retries={"retry_on": ALL, "attempts": 5},
                timeouts={"response_head": duration(0.5)},
            ),
        )
        assert await fetch(gateway, method, body) >= 500
        assert len(one.requests) + len(two.requests) == 1


async def test_response_that_broke_off_is_not_tried_again(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async def cut_off(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    async with RawUpstream(script=cut_off) as bad:
        gateway = await start("", upstreams=main(bad.url, upstream.url, retries={"retry_on": ALL}))
        client = await gateway.connect()
        await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.read_response()
        assert upstream.requests == []


async def test_budget_bounds_the_retries_under_way(start: StartGateway) -> None:
    async with RawUpstream(script=say_nothing) as stuck:
        gateway = await start(
            "",
            upstreams=main(
                stuck.url,
                retries={"retry_on": ["reset"], "budget": {"percent": 0, "min_concurrency": 2}},
                timeouts={"per_try": duration(0.5)},
            ),
        )
        statuses = await asyncio.gather(*(fetch(gateway) for _ in range(10)))
        assert statuses == [504] * 10
        assert len(stuck.requests) == 12
        sample = "gateway_upstream_overflows_total"
        assert await gateway.metric(sample, upstream="main", breaker="max_retries") == 8
        # What was taken is given back.
        assert await fetch(gateway) == 504
        assert len(stuck.requests) == 14


def test_budget_is_a_share_of_the_requests_with_a_floor() -> None:
    budget = RetryLimiter(RetryPolicy(Retries()))
    assert [budget.limit(active) for active in (0, 10, 15, 20, 100)] == [3, 3, 3, 4, 20]
    assert RetryLimiter(RetryPolicy(Retries(), max_retries=7)).limit(1000) == 7


def test_pause_is_drawn_from_a_range_that_grows_up_to_its_limit() -> None:
    backoff, random = Retries().backoff, Random(1)
    for attempt, longest in ((1, 0.025), (2, 0.075), (3, 0.175), (4, 0.25), (9, 0.25)):
        pauses = [backoff.pause_s(attempt, random.random()) for _ in range(500)]
        assert longest * 0.9 < max(pauses) <= longest
        assert min(pauses) < longest * 0.1


async def test_client_that_leaves_during_the_pause_ends_the_tries(start: StartGateway) -> None:
    async with RawUpstream(respond=lambda received: BROKEN) as broken:
        gateway = await start(
            "",
            upstreams=main(
                broken.url, retries={"retry_on": ALL, "backoff": {"base": "1h", "max": "1h"}}
            ),
            listen={"timeouts": {"half_close": "50ms"}},
        )
        client = await gateway.connect()
        await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: len(broken.requests) == 1)
        await client.close()
        (line,) = await gateway.logged(1)
        assert line["status"] == 499
        sample = "gateway_upstream_requests"
        assert await gateway.metric(sample, upstream="main", state="active") == 0


async def test_slow_try_is_given_up_for_another(start: StartGateway, upstream: RawUpstream) -> None:
    async with RawUpstream(script=say_nothing) as stuck:
        settings = main(
            stuck.url,
            upstream.url,
            retries={"retry_on": ["reset"]},
            timeouts={"per_try": duration(0.5)},
        )
        gateway = await start("", upstreams=settings)
        assert await fetch(gateway) == 200
        await until(lambda: stuck.open_connections == 0)


async def test_total_timeout_holds_over_all_tries(start: StartGateway) -> None:
    async with RawUpstream(script=say_nothing) as stuck:
        gateway = await start(
            "",
            upstreams=main(
                stuck.url,
                retries={"retry_on": ["reset"], "attempts": 10},
                timeouts={"per_try": "100ms", "total": "250ms"},
            ),
        )
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 504
            assert (await response.json())["reason"] == "upstream_total_timeout"
        assert 1 <= len(stuck.requests) <= 4
        await until(lambda: stuck.open_connections == 0)


async def test_response_that_is_not_whole_in_time_is_cut(start: StartGateway) -> None:
    async def trickle(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await conversation.send(b"x")
            await asyncio.sleep(0.02)

    async with RawUpstream(script=trickle) as slow:
        gateway = await start("", upstreams=main(slow.url, timeouts={"total": duration(0.5)}))
        client = await gateway.connect()
        await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.read_response()
        (line,) = await gateway.logged(1)
        assert (line["status"], line["reason"]) == (200, "upstream_total_timeout")


async def test_upload_is_not_cut_by_the_time_of_a_try(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start("", upstreams=main(upstream.url, timeouts={"per_try": duration(0.5)}))
    client = await gateway.connect()
    await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    for byte in b"hello":
        await asyncio.sleep(scaled(0.5) / 3)
        await client.send(bytes([byte]))
    assert (await client.read_response()).status == 200
    assert upstream.requests[0].body == b"hello"


# Hedging.


async def test_slow_request_is_sent_twice_and_the_first_response_wins(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with RawUpstream(script=say_nothing) as stuck:
        gateway = await start(
            "", upstreams=main(stuck.url, upstream.url, hedging={"after": duration(0.2)})
        )
        assert await fetch(gateway) == 200
        assert (len(stuck.requests), len(upstream.requests)) == (1, 1)
        await until(lambda: stuck.open_connections == 0)
        assert await retries(gateway, "hedge") == 1
        assert await fetch(gateway) == 200  # the turn of the healthy one
        assert await retries(gateway, "hedge") == 1


async def test_first_request_that_completes_after_all_wins_over_its_hedge(
    start: StartGateway,
) -> None:
    async def respond_when_released(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await is_reported.wait()
        await conversation.send(OK)
        await conversation.reader.read()

    is_reported = asyncio.Event()
    async with (
        RawUpstream(script=respond_when_released) as slow,
        RawUpstream(script=say_nothing) as stuck,
    ):
        gateway = await start(
            "", upstreams=main(slow.url, stuck.url, hedging={"after": duration(0.2)})
        )
        decision_clients = asyncio.create_task(fetch(gateway))
        await until(lambda: len(stuck.requests) == 1)
        is_reported.set()
        assert await decision_clients == 200
        await until(lambda: stuck.open_connections == 0)


@pytest.mark.parametrize("trouble", ["503", "hang_up"])
async def test_hedge_that_fails_leaves_the_first_request_alone(
    start: StartGateway, trouble: str
) -> None:
    async def respond_when_released(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await is_reported.wait()
        await conversation.send(OK)

    async def fail(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        if trouble == "503":
            await conversation.send(BROKEN)
        has_failed.set()

    is_reported, has_failed = asyncio.Event(), asyncio.Event()
    async with RawUpstream(script=respond_when_released) as slow, RawUpstream(script=fail) as bad:
        gateway = await start(
            "", upstreams=main(slow.url, bad.url, hedging={"after": duration(0.2)})
        )
        decision_clients = asyncio.create_task(fetch(gateway))
        await has_failed.wait()
        await until(lambda: bad.open_connections == 0)
        assert not decision_clients.done()
        is_reported.set()
        assert await decision_clients == 200


async def test_first_request_that_fails_waits_for_its_hedge(start: StartGateway) -> None:
    async def fail_when_released(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await is_reported.wait()

    async def respond_later(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        is_reported.set()
        await until(lambda: bad.open_connections == 0)
        await conversation.send(OK)

    is_reported = asyncio.Event()
    async with (
        RawUpstream(script=fail_when_released) as bad,
        RawUpstream(script=respond_later) as good,
    ):
        gateway = await start(
            "",
            upstreams=main(
                bad.url, good.url, hedging={"after": duration(0.2)}, retries={"attempts": 0}
            ),
        )
        assert await fetch(gateway) == 200


async def test_post_is_never_hedged(start: StartGateway) -> None:
    async with RawUpstream(script=say_nothing) as one, RawUpstream(script=say_nothing) as two:
        gateway = await start(
            "",
            upstreams=main(
                one.url, two.url, hedging={"after": "20ms"}, timeouts={"response_head": "300ms"}
            ),
        )
        assert await fetch(gateway, "POST") == 504
        assert len(one.requests) + len(two.requests) == 1
