"""A Redis Cluster that is unavailable as a whole, which redis-py reports by an error of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deadlines import until, within
from support.processes.redis import BUS, RedisServer
from support.running_gateway import StartGateway, basic
from support.servers.raw_upstream import RawUpstream
from support.stores.values import make_client

from examples.ports import free_port
from gateway.oauth.models import StoreUnavailableError
from gateway.store import open_store

CHANNEL = "{gateway}:changes"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RedisServer]:
    """The only node of a Cluster."""
    server = RedisServer(
        tmp_path, "--cluster-enabled", "yes", is_durable=True, port=free_port(and_above=BUS)
    ).start()
    server.fetch("CLUSTER", "ADDSLOTS", *range(16384))
    yield server
    server.stop()


async def test_cluster_that_is_unavailable_is_503_and_pushes_again_afterwards(
    start: StartGateway,
    upstream: RawUpstream,
    node: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"redis+cluster://127.0.0.1:{node.port}"
    node.kill()
    gateway = await start(upstream.url, store=url)
    form = {"grant_type": "client_credentials"}
    for _ in range(6):
        async with gateway.session.post(
            gateway.url("/token"), data=form, headers=basic("shop", "x")
        ) as response:
            assert response.status == 503, await response.text()
            assert "Retry-After" in response.headers
        async with gateway.session.get(gateway.admin_url("/readyz")) as response:
            assert response.status == 503
    assert await gateway.metric("gateway_store_up") == 0
    assert not [record for record in caplog.records if record.exc_info]
    outages = [record for record in caplog.records if "store is unavailable" in record.message]
    assert len(outages) == 1, "one line, not one for each request"
    node.start()

    def subscribers() -> int:
        (counted,) = node.control.pubsub_numsub(CHANNEL)
        return int(counted[1])

    await until(lambda: subscribers() == 1)
    async with within(30):
        while await gateway.metric("gateway_store_up") != 1:
            await asyncio.sleep(0.05)
    await until(lambda: any("again" in record.message for record in caplog.records))
    node.kill()
    node.start()
    await until(lambda: subscribers() == 1)
    other = await open_store(url)
    async with within(30):
        while True:
            with contextlib.suppress(StoreUnavailableError):
                await other.clients.add_client(make_client())
                break
            await asyncio.sleep(0.05)
    await other.close()
