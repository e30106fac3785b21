"""A supervisor in this process; its workers are processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import psutil
import pytest
from support.deadlines import scaled, until, within
from support.running_gateway import ADMIN_TOKEN, RunningGateway, make_config
from support.servers.raw_upstream import RawUpstream
from support.stores.faults import break_store, mend_store

from gateway.app.gateway import Gateway
from gateway.app.supervisor import Supervisor
from gateway.config import parse_config
from gateway.workers import group as group_module
from gateway.workers.group import WorkerStartError

LONG_S = 20.0


def make_supervisor(directory: Path, upstream_url: str, **sections: Any) -> Supervisor:
    text = make_config(directory, upstream_url, workers=2, **sections)
    return Supervisor(parse_config(text, file="g.yaml"))


@pytest.fixture
async def running(tmp_path: Path, upstream: RawUpstream) -> AsyncIterator[RunningGateway]:
    """A gateway of two workers."""
    supervisor = make_supervisor(tmp_path, upstream.url)
    await supervisor.start()
    async with aiohttp.ClientSession() as session:
        gateway = RunningGateway(cast(Gateway, supervisor), tmp_path, session)
        yield gateway
        await gateway.stop()
    assert workers() == []


def workers() -> list[psutil.Process]:
    """The worker processes of this process."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "gateway.app.worker" in child.cmdline()
    ]


async def readiness(gateway: RunningGateway) -> tuple[int, dict[str, str]]:
    async with gateway.session.get(gateway.admin_url("/readyz")) as response:
        return response.status, (await response.json())["checks"]


async def test_gateway_of_several_processes_works_as_one(running: RunningGateway) -> None:
    assert len(workers()) == 2
    assert await readiness(running) == (
        200, {"config": "ok", "store": "ok", "workers": "ok", "draining": "ok"}
    )  # fmt: skip
    token = await running.token("shop")
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(4):
        async with running.session.get(running.url("/api/x"), headers=headers) as response:
            assert response.status == 200
    labels = {"route": "api", "method": "GET", "code": "200", "source": "upstream"}
    assert await running.metric("gateway_requests_total", **labels) == 4
    assert await running.metric("gateway_workers") == 2
    async with running.session.delete(
        running.admin_url("/api/v1/clients/shop"),
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status == 200
    await running.metrics()  # what was told before this is heard
    async with running.session.get(running.url("/api/x"), headers=headers) as response:
        assert response.status == 401


async def test_gateway_is_ready_as_long_as_one_worker_serves(
    running: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "MAX_PAUSE_S", 60.0)
    supervisor = cast(Supervisor, running.gateway)
    assert supervisor._group is not None
    supervisor._group._failures = {1: 9, 2: 9}  # so that there is a long pause
    first, second = workers()
    os.kill(first.pid, signal.SIGKILL)
    async with within(LONG_S):
        while await running.metric("gateway_workers") != 1:
            await asyncio.sleep(0.01)
    assert (await readiness(running))[0] == 200
    assert await running.metric("gateway_worker_restarts_total") == 1
    for _ in range(32):  # none of them waits for a worker that is not there
        async with (
            aiohttp.ClientSession() as session,
            session.get(running.url("/public")) as response,
        ):
            assert response.status == 200
    os.kill(second.pid, signal.SIGKILL)
    reason = await asyncio.wait_for(supervisor.failure(), scaled(LONG_S))
    assert reason.endswith("was killed by signal 9 (Killed)")
    assert await readiness(running) == (
        503, {"config": "ok", "store": "ok", "workers": "0 of 2 ready", "draining": "ok"}
    )  # fmt: skip


async def test_rate_limit_holds_for_all_workers_together(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    supervisor = make_supervisor(
        tmp_path, upstream.url, rate_limit={"requests": 1, "per": "1h", "burst": 10}
    )
    await supervisor.start()
    statuses = []
    for _ in range(32):
        async with (
            aiohttp.ClientSession() as session,  # a connection of its own, to any worker
            session.get(f"http://127.0.0.1:{supervisor.data_address[1]}/public") as response,
        ):
            statuses.append(response.status)
    await supervisor.stop()
    assert statuses == [200] * 10 + [429] * 22


async def test_store_outage_is_reported_by_readiness(running: RunningGateway) -> None:
    break_store(running.directory / "gateway.db")
    status, checks = await readiness(running)
    assert (status, checks["store"]) == (503, "unavailable")
    async with within(LONG_S):
        while await running.metric("gateway_store_up"):
            await asyncio.sleep(0.01)
    mend_store(running.directory / "gateway.db")
    assert (await readiness(running))[0] == 200
    async with within(LONG_S):
        while not await running.metric("gateway_store_up"):
            await asyncio.sleep(0.01)


async def test_drain_takes_readiness_down_first_and_the_port_last(
    running: RunningGateway,
) -> None:
    draining = asyncio.create_task(running.gateway.drain(delay_s=0.5, grace_s=5))
    await asyncio.sleep(0)
    status, checks = await readiness(running)
    assert (status, checks["draining"]) == (503, "draining")
    async with running.session.get(running.url("/public")) as response:
        assert response.status == 200
    await draining
    assert workers() == []
    with pytest.raises(aiohttp.ClientConnectorError):
        await running.session.get(running.url("/public"))
    assert await running.metric("gateway_worker_restarts_total") == 0
    labels = {"route": "public", "method": "GET", "code": "200", "source": "upstream"}
    assert await running.metric("gateway_requests_total", **labels) == 1


async def test_worker_that_cannot_start_closes_everything_again(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    tls = {"cert": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.pem")}
    supervisor = make_supervisor(tmp_path, upstream.url, listen={"tls": tls})
    with pytest.raises(WorkerStartError, match="No such file"):
        await supervisor.start()
    await until(lambda: not workers())
    again = make_supervisor(tmp_path, upstream.url)
    await again.start()
    await again.stop()
