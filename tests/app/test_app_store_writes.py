"""A store that serves reads and rejects writes is told apart from a healthy one."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support.deadlines import until, within
from support.processes.redis import RedisServer
from support.running_gateway import RunningGateway, StartGateway, basic
from support.servers.raw_upstream import RawUpstream
from support.stores.timeouts import set_default

from gateway.oauth.models import StoreRejectedError, StoreUnavailableError
from gateway.store import StoreHealth
from gateway.store.sqlite.file import SqliteFile


async def request_token(gateway: RunningGateway) -> int:
    """The status that a request for a token gets."""
    form = {"grant_type": "client_credentials"}
    async with gateway.session.post(
        gateway.url("/token"), data=form, headers=basic("tester", "secret")
    ) as response:
        return response.status


async def see_it_through(
    gateway: RunningGateway,
    break_writes: Callable[[], object],
    mend: Callable[[], object],
    caplog: pytest.LogCaptureFixture,
    reason: str,
) -> None:
    token = await gateway.token()
    assert await gateway.metric("gateway_store_writable") == 1
    break_writes()
    for _ in range(5):
        assert await request_token(gateway) == 503
    assert await gateway.metric("gateway_store_writable") == 0
    assert await gateway.metric("gateway_store_up") == 1
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url("/api"), headers=headers) as response:
        assert response.status == 200
    async with gateway.session.get(gateway.admin_url("/readyz")) as response:
        assert response.status == 200, "it serves what it can"
    warnings = [one.message for one in caplog.records if one.levelno >= logging.WARNING]
    assert len([one for one in warnings if "rejects writes" in one]) == 1
    assert any(reason in one for one in warnings), warnings
    mend()
    # Without a request: the gateway tries by itself.
    async with within(30):
        while await gateway.metric("gateway_store_writable") != 1:
            await asyncio.sleep(0.05)
    await until(lambda: any("accepts writes again" in one.message for one in caplog.records))
    assert await request_token(gateway) == 200


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gateway try a write every now and then without a test having to wait for it."""
    monkeypatch.setattr("gateway.app.periodic.CENSUS_S", 0.3)


@pytest.mark.parametrize(
    ("option", "bad", "good", "reason"),
    [
        ("maxmemory", "1", "0", "OOM, out of memory"),
        ("min-replicas-to-write", "1", "0", "NOREPLICAS"),
    ],
)
async def test_redis_that_rejects_writes(
    start: StartGateway,
    upstream: RawUpstream,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    option: str,
    bad: str,
    good: str,
    reason: str,
) -> None:
    gateway = await start(upstream.url, store=redis_server.url)
    control = redis_server.control
    await see_it_through(
        gateway,
        lambda: control.config_set(option, bad),
        lambda: control.config_set(option, good),
        caplog,
        reason,
    )


async def test_sqlite_file_that_another_process_has_locked(
    start: StartGateway,
    upstream: RawUpstream,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    set_default(monkeypatch, SqliteFile, "busy_timeout_s", 0.1)
    gateway = await start(upstream.url)
    other = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    await see_it_through(
        gateway,
        lambda: other.execute("BEGIN IMMEDIATE"),
        lambda: other.execute("ROLLBACK"),
        caplog,
        "SQLite: database is locked",
    )
    other.close()


def test_flapping_store_is_one_line_and_not_one_for_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    up: list[bool] = []
    health = StoreHealth(on_up=up.append, clock=lambda: now)
    for _ in range(100):
        now += 0.01
        health.fail("get_token", StoreUnavailableError("away"))
        health.succeed("get_token")
    assert len(caplog.records) == 1
    assert up == [False, True] * 100
    now += 1
    health.succeed("get_token")
    assert [record.message for record in caplog.records] == [
        "the store is unavailable: away", "the store is available again",
    ]  # fmt: skip


def test_only_what_surely_writes_shows_that_writes_are_accepted() -> None:
    health = StoreHealth()
    states = []
    for operation, error in (
        ("get_token", StoreRejectedError("not permitted")),  # says nothing about writes
        ("add_token", StoreRejectedError("full")),
        ("get_token", None),
        ("take_record", None),  # a full Redis still removes
        ("put_record", None),
    ):
        if error is None:
            health.succeed(operation)
        else:
            health.fail(operation, error)
        states.append(health.rejects_writes)
    assert states == [False, True, True, True, False]
