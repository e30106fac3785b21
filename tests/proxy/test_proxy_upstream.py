"""Which target a request goes to."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest
from raw_upstream import Conversation, RawUpstream
from running_gateway import StartGateway, until

from gateway.metrics import Histogram
from gateway.proxy.problems import ConnectError
from gateway.proxy.upstreams.balancing import Balance
from gateway.proxy.upstreams.target import Target, Timeouts
from gateway.proxy.upstreams.upstream import Upstream


def make_upstream(balance: Balance, count: int = 3) -> Upstream:
    targets = [Target(f"http://127.0.0.1:{port}", Timeouts()) for port in range(1, count + 1)]
    return Upstream("u", targets, durations=Histogram(), balance=balance)


async def test_round_robin_takes_turns() -> None:
    upstream = make_upstream("round_robin")
    chosen = [upstream.choose("") for _ in range(6)]
    assert chosen == [*upstream.endpoints, *upstream.endpoints]


async def test_consistent_hash_keeps_a_client_on_its_target_and_spreads_clients() -> None:
    upstream = make_upstream("consistent_hash")
    first = {key: upstream.choose(key) for key in map(str, range(300))}
    assert {key: upstream.choose(key) for key in first} == first
    shares = Counter(endpoint.key for endpoint in first.values())
    assert min(shares.values()) > 60


async def test_consistent_hash_moves_only_the_clients_of_a_target_that_goes() -> None:
    upstream = make_upstream("consistent_hash")
    before = {key: upstream.choose(key) for key in map(str, range(200))}
    gone = upstream.endpoints[0]
    with pytest.raises(ConnectError):
        await gone.connect()
    assert not gone.is_up(asyncio.get_running_loop().time())
    for key, target in before.items():
        moved = upstream.choose(key) is not target
        assert moved is (target is gone)


@pytest.mark.parametrize("balance", ["least_requests", "random_two"])
async def test_less_busy_target_is_preferred(start: StartGateway, balance: str) -> None:
    async def never_answer(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    async with RawUpstream(script=never_answer) as stuck, RawUpstream() as free:
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
        targets = [Target(f"http://127.0.0.1:{port}", Timeouts()) for _ in range(2)]
        upstream = Upstream("u", targets, durations=Histogram())
        for endpoint in upstream.endpoints:
            with pytest.raises(ConnectError):
                await endpoint.connect()
        assert upstream.choose("") in upstream.endpoints
