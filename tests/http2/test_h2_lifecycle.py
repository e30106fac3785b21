"""Reload, drain and the death of a worker, while streams are open on both sides."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from http2.conftest import Connect
from hyperframe.frame import DataFrame, GoAwayFrame
from support.clients.h2_client import H2Client
from support.clients.h2_raw import GET, RawH2Client
from support.deadlines import until, within
from support.processes.gateway import gateway_process
from support.running_gateway import RunningGateway, StartGateway, make_config
from support.servers.h2_upstream import H2Request, H2Upstream
from support.tiers import slow

from gateway.config import parse_config


def main(upstream: H2Upstream, **settings: Any) -> dict[str, Any]:
    return {"main": {"targets": [upstream.url], "protocol": "http2", **settings}}


@pytest.fixture
async def held() -> AsyncIterator[H2Upstream]:
    """An upstream that keeps each request of which nothing is known."""

    def hold(request: H2Request) -> None:
        if b"/held" not in request.one(b":path"):
            request.respond()

    async with H2Upstream(on_end=hold) as upstream:
        yield upstream


async def begin_response(client: H2Client, upstream: H2Upstream, *, count: int = 1) -> list[int]:
    """Open streams, and have their responses begin."""
    streams = [client.begin("/public/held") for _ in range(count)]
    await until(lambda: len(upstream.requests) >= count)
    for request in upstream.requests:
        request.head()
        request.send(b"first ")
    await until(lambda: all(client.responses[one].body == b"first " for one in streams))
    return streams


async def apply(gateway: RunningGateway, **sections: Any) -> None:
    text = make_config(gateway.directory, "http://127.0.0.1:9", **sections)
    await gateway.gateway._apply(parse_config(text, file="test.yaml"))


@pytest.mark.parametrize("change", ["timeouts", "target", "route"])
async def test_reload_lets_open_streams_finish_and_others_take_a_new_connection(
    start: StartGateway, connect: Connect, held: H2Upstream, change: str
) -> None:
    async with H2Upstream() as other:
        gateway = await start("", upstreams=main(held))
        client = await connect(gateway.port)
        streams = await begin_response(client, held, count=3)
        [connection] = held.connections
        if change == "timeouts":
            await apply(gateway, upstreams=main(held, timeouts={"connect": "9s"}))
        elif change == "target":
            await apply(gateway, upstreams=main(other))
        else:
            await apply(gateway, upstreams=main(held), routes=[])
        expected = 404 if change == "route" else 200
        assert (await client.request()).status == expected
        assert len(held.connections) == (2 if change == "timeouts" else 1)
        assert len(other.connections) == (change == "target")
        for request in held.requests[:3]:
            request.send(b"last")
            request.end([(b"x-checksum", b"1")])
        for stream in streams:
            response = await client.finish(stream)
            assert (response.body, response.trailers) == (b"first last", [("x-checksum", "1")])
        if change != "route":
            # It served what it had, and says goodbye.
            await until(lambda: connection.transport is None)
            assert connection.goaway_code == 0


async def test_drain_waits_for_streams_whose_response_has_begun(
    start: StartGateway, held: H2Upstream
) -> None:
    gateway = await start("", upstreams=main(held))
    client = await RawH2Client.connect(gateway.port)  # hyper-h2 takes GOAWAY for the end
    get = [*GET[:3], (":path", "/public/held")]
    client.send(*(client.head(stream, get) for stream in (1, 3, 5)))
    await until(lambda: len(held.requests) == 3)
    for request in held.requests:
        request.head()
        request.send(b"first ")
    for _ in range(3):
        await client.frame(DataFrame)
    draining = asyncio.create_task(gateway.gateway.drain(delay_s=0, grace_s=600))
    await client.frame(GoAwayFrame)
    assert not draining.done()
    for request in held.requests:
        request.send(b"last")
        request.end()
    frames = await client.frames()  # it is closed when the last stream has ended
    data = [one for one in frames if isinstance(one, DataFrame)]
    assert b"".join(one.data for one in data) == b"last" * 3
    assert {one.stream_id for one in data if "END_STREAM" in one.flags} == {1, 3, 5}
    assert [one.last_stream_id for one in frames if isinstance(one, GoAwayFrame)] == [5]
    async with within():
        await draining
    await client.close()


async def test_streams_are_cut_on_both_sides_when_the_grace_is_over(
    start: StartGateway, connect: Connect, held: H2Upstream
) -> None:
    gateway = await start("", upstreams=main(held))
    client = await connect(gateway.port)
    [stream] = await begin_response(client, held)
    async with within():
        await gateway.gateway.drain(delay_s=0, grace_s=0.05)
        await gateway.gateway.stop()
    await client.closed()
    assert not client.responses[stream].has_ended
    await until(lambda: not held.open_connections)
    assert gateway.gateway.metrics.data_plane.inflight_requests == 0
    [line] = await gateway.logged(1)
    assert (line["status"], line["reason"]) == (200, "client_closed")


@slow("under load")
@pytest.mark.system
async def test_killed_worker_takes_its_streams_and_no_others(
    tmp_path: Path, held: H2Upstream
) -> None:
    with gateway_process(
        tmp_path, upstream_url="", workers=2, upstreams=main(held)
    ) as gateway:  # fmt: skip
        supervisor = psutil.Process(gateway.process.pid)
        clients = [await H2Client.connect(gateway.port) for _ in range(16)]
        streams = [client.begin("/public/held") for client in clients]
        await until(lambda: len(held.requests) == 16)
        for request in held.requests:
            request.head()
            request.send(b"first ")
        await until(lambda: all(c.responses[s].body for c, s in zip(clients, streams, strict=True)))
        workers = [
            child.pid
            for child in supervisor.children(recursive=True)
            if any(argument.startswith("--number=") for argument in child.cmdline())
        ]
        os.kill(workers[0], signal.SIGKILL)
        # The upstream sees the connection of that worker go, and serves on the other.
        await until(lambda: len(held.open_connections) == 1)
        for request in held.requests:
            if request.connection.transport is not None:
                request.send(b"last")
                request.end()
        ends = [await client.finish(s) for client, s in zip(clients, streams, strict=True)]
        whole = [one for one in ends if one.has_ended]
        assert 0 < len(whole) < 16
        assert {one.body for one in whole} == {b"first last"}
        assert {one.body for one in ends if not one.has_ended} == {b"first "}
        for client in clients:
            await client.close()

        async def is_served() -> bool:
            async with await H2Client.connect(gateway.port) as client:
                return (await client.request()).status == 200

        for _ in range(8):
            await until(is_served)
    assert "Traceback" not in gateway.errors()


@pytest.mark.skipif("TEST_COMPILED" in os.environ, reason="looks into a compiled module")
async def test_connections_that_began_together_are_asked_to_close_at_different_times(
    start: StartGateway, held: H2Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`max_age` is 10 % more or less, by a chance of its own for each connection."""
    chances = [1.1, 0.0]
    asked: list[tuple[float, float]] = []

    def choose(low: float, high: float) -> float:
        asked.append((low, high))
        return chances.pop()

    monkeypatch.setattr("gateway.downstream.h2.uniform", choose)
    gateway = await start("", listen={"http2": {"max_age": "1h"}}, upstreams=main(held))
    first = await RawH2Client.connect(gateway.port)
    second = await H2Client.connect(gateway.port)
    assert await first.frame(GoAwayFrame)
    assert (await second.request("/public")).status == 200
    assert asked == [(0.9, 1.1)] * 2
    await first.close()
    await second.close()
