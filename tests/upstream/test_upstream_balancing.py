"""Which target a request goes to."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from support.deadlines import until
from support.protocols import both_upstream_protocols
from support.running_gateway import StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream

from gateway.http.errors import ConnectError
from gateway.metrics import Histogram
from gateway.upstream import balancing
from gateway.upstream.balancing import Balance, ConsistentHash
from gateway.upstream.settings import SlowStart, UpstreamTimeouts
from gateway.upstream.stream import ResponseSink
from gateway.upstream.target import Target
from gateway.upstream.upstream import Upstream

ALL: list[Balance] = ["round_robin", "least_requests", "random_two", "consistent_hash"]

pytestmark = both_upstream_protocols


def make_upstream(
    balance: Balance, count: int = 3, weights: Sequence[int] = (1, 1, 1), **settings: Any
) -> Upstream:
    targets = [
        Target(f"http://127.0.0.1:{port}", UpstreamTimeouts(), weight=weights[port - 1])
        for port in range(1, count + 1)
    ]
    return Upstream(
        "u", targets, durations=Histogram(), balance=balance, chance=Random(7), **settings
    )


def shares(upstream: Upstream, count: int) -> list[int]:
    """How many of so many requests each endpoint would get."""
    chosen = Counter(upstream.choose(str(number)).key for number in range(count))
    return [chosen[endpoint.key] for endpoint in upstream.endpoints]


async def test_round_robin_takes_turns() -> None:
    upstream = make_upstream("round_robin")
    chosen = [upstream.choose("") for _ in range(6)]
    assert chosen == [*upstream.endpoints, *upstream.endpoints]


async def test_consistent_hash_keeps_a_client_on_its_target_and_spreads_clients() -> None:
    upstream = make_upstream("consistent_hash")
    first = {key: upstream.choose(key) for key in map(str, range(300))}
    assert {key: upstream.choose(key) for key in first} == first
    counts = Counter(endpoint.key for endpoint in first.values())
    assert min(counts.values()) > 60


async def test_consistent_hash_moves_only_the_clients_of_a_target_that_goes() -> None:
    upstream = make_upstream("consistent_hash")
    before = {key: upstream.choose(key) for key in map(str, range(200))}
    gone = upstream.endpoints[0]
    with pytest.raises(ConnectError):
        await gone.pool.open(ResponseSink())
    now = asyncio.get_running_loop().time()
    assert not gone.is_up(now)
    for key, target in before.items():
        moved = upstream.choose(key) is not target
        assert moved is (target is gone)


async def test_large_ring_is_made_by_another_thread_and_moves_no_other_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    makers: list[int] = []

    def noted(*arguments: Any) -> Any:
        makers.append(threading.get_ident())
        return make_ring(*arguments)

    # As a reload makes it, in a thread: at once.
    upstream = await asyncio.to_thread(make_upstream, "consistent_hash", 100, [1] * 100)
    at_once = upstream._balancer
    assert isinstance(at_once, ConsistentHash)
    assert at_once._placed is at_once._known
    make_ring = balancing._make_ring
    monkeypatch.setattr(balancing, "_make_ring", noted)
    before = {key: upstream.choose(key) for key in map(str, range(500))}
    balancer = ConsistentHash(Random(7))
    _, *left = upstream.endpoints
    for endpoints in (upstream.endpoints, left):
        balancer.update(endpoints, endpoints)
        first = {key: balancer.choose(key) for key in before}
        assert set(first.values()) <= set(endpoints)
        await until(lambda: balancer._placed is balancer._known)
        after = {key: balancer.choose(key) for key in before}
        assert all(after[key] is one for key, one in before.items() if one in endpoints)
    assert first == after, "the ring before serves until the next one is made"
    assert len(makers) == 2
    assert threading.get_ident() not in makers


async def test_ring_that_cannot_be_made_is_reported_and_the_one_before_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = await asyncio.to_thread(make_upstream, "consistent_hash", 100, [1] * 100)
    _, *left = upstream.endpoints
    before = upstream.choose("key")

    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(balancing, "_make_ring", fail)
    upstream._balancer.update(left, left)
    await until(lambda: "a ring of 99 endpoints could not be made" in caplog.text)
    assert upstream.choose("key") is before or before not in left


@pytest.mark.parametrize("balance", ["least_requests", "random_two"])
async def test_less_busy_target_is_preferred(start: StartGateway, balance: str) -> None:
    async def never_respond(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    async with RawUpstream(script=never_respond) as stuck, RawUpstream() as free:
        gateway = await start(
            free.url, upstreams={"main": {"targets": [stuck.url, free.url], "balance": balance}}
        )
        # Keep requesting until one is stuck; from then on the other target is less busy.
        stuck_requests = []
        while not stuck.open_connections:
            client = await gateway.connect()
            await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
            stuck_requests.append(client)
            await until(lambda: stuck.open_connections + len(free.requests) >= len(stuck_requests))
        for _ in range(20):
            async with gateway.session.get(gateway.url("/public")) as response:
                assert response.status == 200
        assert stuck.open_connections == 1


async def test_where_all_targets_are_down_they_are_tried_all_the_same() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        targets = [Target(f"http://127.0.0.1:{port}", UpstreamTimeouts()) for _ in range(2)]
        upstream = Upstream("u", targets, durations=Histogram())
        for endpoint in upstream.endpoints:
            with pytest.raises(ConnectError):
                await endpoint.pool.open(ResponseSink())
        assert upstream.choose("") in upstream.endpoints


@pytest.mark.parametrize("balance", ALL)
async def test_weights_are_shares_of_the_requests(balance: Balance) -> None:
    one, two, three = shares(make_upstream(balance, weights=(1, 3, 6)), 2000)
    assert 130 < one < 270
    assert 500 < two < 700
    assert 1100 < three < 1300


async def test_weighted_turns_are_spread_and_not_in_blocks() -> None:
    upstream = make_upstream("round_robin", weights=(4, 1, 1))
    chosen = [upstream.endpoints.index(upstream.choose("")) for _ in range(6)]
    assert chosen == [0, 0, 1, 2, 0, 0]


@pytest.mark.parametrize("balance", ["round_robin", "least_requests", "random_two"])
async def test_new_endpoint_begins_with_a_part_of_its_share_and_grows_to_all_of_it(
    balance: Balance,
) -> None:
    upstream = make_upstream(balance, slow_start=SlowStart(60.0))
    newcomer = upstream.endpoints[2]
    now = asyncio.get_running_loop().time()
    newcomer.warm_up(now)
    upstream.refresh()
    assert 60 < shares(upstream, 2000)[2] < 140  # 10 % of a weight, beside two whole ones
    newcomer.warming_since = now - 30
    upstream.refresh()
    assert 320 < shares(upstream, 2000)[2] < 480  # half of one
    newcomer.warming_since = now - 61
    upstream.refresh()
    assert shares(upstream, 3000)[2] > 900
    assert not newcomer.warming_since


def test_slow_start_follows_the_formula_of_envoy() -> None:
    assert SlowStart(60, 1, 10).factor(0) == 0.1
    assert SlowStart(60, 1, 10).factor(30) == 0.5
    assert SlowStart(60, 2, 10).factor(15) == 0.5
    assert SlowStart(60, 1, 10).factor(60) == 1.0


async def test_endpoint_that_comes_back_starts_slowly() -> None:
    upstream = make_upstream("round_robin", slow_start=SlowStart(60.0))
    endpoint = upstream.endpoints[0]
    endpoint.is_healthy = False
    upstream.refresh()
    assert shares(upstream, 30)[0] == 0
    endpoint.is_healthy = True
    upstream.refresh()
    assert 0 < shares(upstream, 300)[0] < 40


async def test_requests_are_kept_together_by_what_hash_on_says(start: StartGateway) -> None:
    async with RawUpstream() as one, RawUpstream() as two:
        main = {
            "targets": [one.url, two.url],
            "balance": "consistent_hash",
            "hash_on": "header:X-Cart",
        }
        gateway = await start(one.url, upstreams={"main": main})
        for cart in ("a", "b", "c", "d", "e", "f", "g", "h"):
            before = len(one.requests)
            for _ in range(3):
                async with gateway.session.get(
                    gateway.url("/public"), headers={"X-Cart": cart}
                ) as response:
                    assert response.status == 200
            assert len(one.requests) - before in {0, 3}
        assert one.requests
        assert two.requests
        seen = len(one.requests)
        for _ in range(4):  # without the field it is the address
            async with gateway.session.get(gateway.url("/public")) as response:
                assert response.status == 200
        assert len(one.requests) - seen in {0, 4}
