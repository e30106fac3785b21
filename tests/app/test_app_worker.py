"""A worker in this process, and a test in the place of its supervisor."""

from __future__ import annotations

import asyncio
import pickle
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.deadlines import until, within
from support.running_gateway import REGISTRATION_TOKEN, basic, make_config
from support.servers.raw_upstream import OK, Conversation, RawUpstream

from gateway import __version__
from gateway.app.data_listener import DataListener
from gateway.app.worker import Worker
from gateway.config import Config, parse_config
from gateway.downstream.sockets import Sockets, close_sockets, open_sockets
from gateway.oauth.limiter import FailingClient
from gateway.workers.channel import Channel
from gateway.workers.messages import (
    Adopt,
    ClientFailed,
    ClientSucceeded,
    Collect,
    CommitConfig,
    ConfigResult,
    Drain,
    Failed,
    Message,
    PrepareConfig,
    Ready,
    Release,
    Revoked,
    Snapshot,
    Start,
    Stop,
    UpstreamsReported,
)

LOCAL = "127.0.0.1"


class Supervised:
    """A worker, and what it says."""

    def __init__(self, channel: Channel, running: asyncio.Task[int], shares: list[Sockets]) -> None:
        self.channel = channel
        self.running = running
        self.shares = shares
        self.port = shares[0][0].getsockname()[1]
        self.session = aiohttp.ClientSession()
        self.collections = 0
        self.config: Config

    async def next(self, kind: type[Message]) -> Any:
        """The next message of a kind."""
        async with within():
            while not isinstance(message := await self.channel.receive(), kind):
                assert message is not None, f"it ended without {kind.__name__}"
        return message

    async def counted(self, name: str, **labels: str) -> float:
        """The sum of some samples, after everything it was told before was done."""
        self.collections += 1
        self.channel.send(Collect(self.collections))
        while (snapshot := await self.next(Snapshot)).number != self.collections:
            assert snapshot.number == 0, "it tells unasked, too"
        return total(snapshot, name, **labels)

    async def end(self) -> int:
        """The exit status."""
        async with within():
            return await self.running

    async def request_token(self, client_id: str, secret: str) -> tuple[int, dict[str, Any]]:
        async with self.session.post(
            f"http://{LOCAL}:{self.port}/token",
            data={"grant_type": "client_credentials"},
            headers=basic(client_id, secret),
        ) as response:
            return response.status, await response.json()

    async def token(self, client_id: str, secret: str = "secret") -> str:
        async with self.session.post(
            f"http://{LOCAL}:{self.port}/createClient",
            json={"client_id": client_id, "client_secret": secret},
            headers={"Authorization": f"Bearer {REGISTRATION_TOKEN}"},
        ) as response:
            assert response.status == 201
        status, reply = await self.request_token(client_id, secret)
        assert status == 200
        token: str = reply["access_token"]
        return token

    async def status(self, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"http://{LOCAL}:{self.port}/api/x"
        async with self.session.get(url, headers=headers) as response:
            return response.status


def total(snapshot: Snapshot, name: str, **labels: str) -> float:
    return sum(
        value
        for family in snapshot.families
        for sample, its_labels, value in family.samples
        if sample == name and labels.items() <= its_labels.items()
    )


@pytest.fixture
async def supervise(tmp_path: Path, upstream: RawUpstream) -> AsyncIterator[Any]:
    """Starts a worker as `await supervise(version=..., failing=..., **config_sections)`."""
    started: list[Supervised] = []

    async def start_one(
        version: str = __version__, failing: list[FailingClient] | None = None, **sections: Any
    ) -> Supervised:
        config = parse_config(make_config(tmp_path, upstream.url, **sections), file="g.yaml")
        shares = open_sockets(LOCAL, 0, workers=2)
        ours, theirs = socket.socketpair()
        own = {n: [s.dup() for s in share] for n, share in enumerate(shares, 1)}
        worker = Worker(1, await Channel.open(theirs), own)
        channel = await Channel.open(ours)
        channel.send(Start(version, pickle.dumps(config), failing or []))
        started.append(Supervised(channel, asyncio.create_task(worker.run()), shares))
        started[-1].config = config
        return started[-1]

    yield start_one
    for supervised in started:
        await supervised.session.close()
        supervised.channel.send(Stop())
        await supervised.channel.close()
        await supervised.end()
        close_sockets(supervised.shares)


async def test_worker_serves_and_reports_what_it_counts(supervise: Any) -> None:
    worker = await supervise()
    await worker.next(Ready)
    assert await worker.status(await worker.token("shop")) == 200
    labels = {"route": "api", "method": "GET", "code": "200", "source": "upstream"}
    assert await worker.counted("gateway_requests_total", **labels) == 1


async def test_worker_reports_its_metrics_unasked_so_that_a_crash_loses_little(
    supervise: Any,
) -> None:
    worker = await supervise()
    await worker.next(Ready)
    assert (await worker.next(Snapshot)).number == 0
    assert (await worker.next(Snapshot)).number == 0


async def test_revocation_received_from_the_supervisor_evicts_what_is_cached(
    supervise: Any,
) -> None:
    worker = await supervise()
    await worker.next(Ready)
    token = await worker.token("shop")
    lookups = "gateway_token_cache_lookups_total"
    assert [await worker.status(token) for _ in range(2)] == [200, 200]
    worker.channel.send(Revoked(client_id="somebody"))
    assert await worker.counted(lookups, result="miss") == 1
    assert await worker.status(token) == 200
    assert await worker.counted(lookups, result="miss") == 1
    worker.channel.send(Revoked(client_id="shop"))
    assert await worker.counted(lookups, result="miss") == 1
    assert await worker.status(token) == 200  # the store knows nothing of a revocation
    assert await worker.counted(lookups, result="miss") == 2


async def test_revocation_in_a_worker_is_reported(supervise: Any) -> None:
    worker = await supervise(provider={"registration": {"fail_if_present": False}})
    await worker.next(Ready)
    token = await worker.token("shop")
    assert await worker.status(token) == 200
    await worker.token("shop", "another secret")
    assert await worker.status(token) == 401
    assert (await worker.next(Revoked)).client_id == "shop"


async def test_failures_of_clients_are_reported_and_received(supervise: Any) -> None:
    worker = await supervise(failing=[FailingClient("old", LOCAL, 5, 60.0)])
    await worker.next(Ready)
    assert (await worker.request_token("old", "wrong"))[0] == 429
    await worker.token("shop")
    assert (await worker.request_token("shop", "wrong"))[0] == 401
    failed = await worker.next(ClientFailed)
    assert (failed.client_id, failed.source) == ("shop", LOCAL)
    assert (await worker.request_token("shop", "secret"))[0] == 200
    assert await worker.next(ClientSucceeded) == ClientSucceeded("shop", LOCAL)
    for _ in range(5):
        worker.channel.send(ClientFailed("shop", LOCAL))
    await worker.counted("")
    assert (await worker.request_token("shop", "secret"))[0] == 429
    worker.channel.send(ClientSucceeded("shop", LOCAL))
    await worker.counted("")
    assert (await worker.request_token("shop", "secret"))[0] == 200


async def test_worker_accepts_for_another_until_it_is_asked_to_release_it(supervise: Any) -> None:
    worker = await supervise()
    await worker.next(Ready)
    (orphan,) = worker.shares[1]
    orphan.listen()
    worker.channel.send(Adopt(2))
    statuses = []
    for _ in range(32):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{LOCAL}:{worker.port}/public") as response,
        ):
            statuses.append(response.status)
    assert statuses == [200] * 32
    worker.channel.send(Release(2))
    await worker.counted("")
    clients = [socket.create_connection((LOCAL, worker.port)) for _ in range(32)]

    def is_ours() -> bool:
        try:
            orphan.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    await until(is_ours)
    for client in clients:
        client.close()


async def test_drained_worker_finishes_what_is_in_flight_and_ends(
    supervise: Any, upstream: RawUpstream
) -> None:
    may_respond = asyncio.Event()

    async def respond_late(conversation: Conversation, upstream: RawUpstream) -> None:
        while await conversation.read_head():
            await may_respond.wait()
            await conversation.send(OK)

    upstream.script = respond_late
    worker = await supervise()
    await worker.next(Ready)
    # Its own connections only: the other share is nobody's here.
    reader, writer = await asyncio.open_connection(LOCAL, worker.port)
    writer.write(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    await until(lambda: upstream.open_connections == 1)
    worker.channel.send(Drain(30.0))
    worker.channel.send(Drain(0.0))  # the first word counts
    close_sockets(worker.shares)
    async with within():
        while True:
            try:
                _, probe = await asyncio.open_connection(LOCAL, worker.port)
            except OSError:
                break
            probe.transport.abort()
            await asyncio.sleep(0.01)
    assert not worker.running.done()
    may_respond.set()
    assert (await reader.read()).endswith(b"ok")
    writer.close()
    assert await worker.end() == 0
    snapshot = None
    while (message := await worker.channel.receive()) is not None:
        snapshot = message if isinstance(message, Snapshot) else snapshot
    assert snapshot is not None, "the last thing it says is what it counted"
    assert total(snapshot, "gateway_requests_total", code="200") == 1


async def test_worker_whose_supervisor_is_gone_drains_and_ends(
    supervise: Any, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await supervise()
    await worker.next(Ready)
    await worker.channel.close()
    assert await worker.end() == 0
    assert "the supervisor is gone; draining" in caplog.text


async def test_worker_asked_to_stop_does_not_wait_for_its_drain(
    supervise: Any, upstream: RawUpstream
) -> None:
    async def say_nothing(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    upstream.script = say_nothing
    worker = await supervise()
    await worker.next(Ready)
    _, writer = await asyncio.open_connection(LOCAL, worker.port)
    writer.write(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    await until(lambda: upstream.open_connections == 1)
    worker.channel.send(Drain(3600.0))
    worker.channel.send(Stop())
    assert await worker.end() == 0
    writer.close()


async def test_worker_that_cannot_start_says_why(supervise: Any, tmp_path: Path) -> None:
    worker = await supervise(store=f"sqlite:///{tmp_path}/missing/a.db")
    assert "missing/a.db" in (await worker.next(Failed)).reason
    assert await worker.end() == 1


async def test_worker_of_another_version_refuses(supervise: Any) -> None:
    worker = await supervise(version="0.0.0")
    assert (await worker.next(Failed)).reason == (f"gateway 0.0.0 became {__version__}: restart it")
    assert await worker.end() == 1


async def test_worker_whose_supervisor_says_nothing_ends() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    assert await Worker(1, await Channel.open(theirs), {}).run() == 0


async def test_share_of_the_connections_is_the_workers(supervise: Any) -> None:
    worker = await supervise(workers=3, listen={"max_connections": 4})
    await worker.next(Ready)
    opened = [await asyncio.open_connection(LOCAL, worker.port) for _ in range(2)]
    reader, writer = await asyncio.open_connection(LOCAL, worker.port)
    assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    for _, each in (*opened, (reader, writer)):
        each.close()


def test_worker_loads_nothing_that_it_does_not_need() -> None:
    needless = {"aiohttp", "redis", "gateway.admin"}
    code = f"import sys, gateway.app.worker; print({needless} & {{*sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert shown.strip() == b"set()", "it is started in a hurry"


async def test_worker_goes_on_after_what_it_can_not_do(
    supervise: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = {"release": 2, "upstream_states": 2, "commit": 1}
    for name in list(failures):
        work = getattr(DataListener, name)

        def fail(self: DataListener, *arguments: Any, name: str = name, work: Any = work) -> Any:
            if failures[name]:
                failures[name] -= 1
                raise KeyError("unforeseen")
            return work(self, *arguments)

        monkeypatch.setattr(DataListener, name, fail)
    monkeypatch.setattr("gateway.app.worker.PUSH_S", 0.05)
    worker = await supervise()
    await worker.next(Ready)
    token = await worker.token("shop")
    for _ in range(2):
        worker.channel.send(Release(1))
    config = worker.config
    worker.channel.send(PrepareConfig(1, pickle.dumps(config)))
    assert (await worker.next(ConfigResult)).problem == ""
    worker.channel.send(CommitConfig(1))
    assert "KeyError" in (await worker.next(ConfigResult)).problem, "nobody waits for ever"
    await worker.next(UpstreamsReported)
    assert await worker.status(token) == 200
    assert failures == {"release": 0, "upstream_states": 0, "commit": 0}
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert sorted(errors) == [
        "background task failed: messages of the supervisor; continuing",
        "background task failed: report of metrics; continuing",
    ]
