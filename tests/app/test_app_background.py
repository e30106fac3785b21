"""Background tasks go on after an exception that nobody foresaw, and log it once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.deadlines import until
from support.processes.redis import RedisServer
from support.stores.values import make_client, make_token

from gateway.app.invalidation import Invalidation
from gateway.app.periodic import PerGatewayTasks, PeriodicTasks
from gateway.background import RetryPauses, keep_running
from gateway.metrics import Metrics
from gateway.oauth.models import Change, StoreUnavailableError
from gateway.oauth.token_cache import TokenCache
from gateway.store import open_store


class UnforeseenError(Exception):
    """What no `except` names."""


class Failing:
    """A store, or a part of one, some of whose methods fail, as often as the test says."""

    def __init__(self, store: object, failures: dict[str, int]) -> None:
        self._store = store
        self.failures = failures

    def __getattr__(self, name: str) -> object:
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise UnforeseenError(name)
        found = getattr(self._store, name)
        return Failing(found, self.failures) if name in {"clients", "records"} else found


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


async def test_task_is_run_again_and_its_failure_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise UnforeseenError

    await keep_running("something", work, longest_pause_s=0.001)
    assert runs == 4
    assert errors_in(caplog) == ["background task failed: something; continuing"]


def test_pauses_grow_up_to_a_bound_and_start_again_after_a_success() -> None:
    retries = RetryPauses("x", first_pause_s=1.0, longest_pause_s=8.0)
    pauses = [retries.fail(UnforeseenError()) for _ in range(50)]
    for pause, most in zip(pauses, [1, 2, 4, 8, 8, 8], strict=False):
        assert most / 2 <= pause <= most
    assert max(pauses) <= 8
    retries.succeed()
    assert retries.fail(UnforeseenError()) <= 1


@pytest.mark.parametrize("method", ["changes_since", "watch_changes"])
async def test_revocations_are_followed_after_an_unforeseen_exception(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    mine, others = [await open_store(redis_server.url) for _ in range(2)]
    metrics = Metrics()
    failing = Failing(mine, {})
    validator = TokenCache(mine.tokens, metrics)
    invalidation = Invalidation(failing, validator, metrics, poll_s=0.02)  # type: ignore[arg-type]
    failing.failures[method] = 2
    await invalidation.start()
    await until(lambda: failing.failures[method] == 0)
    await others.clients.add_client(make_client(ends=None))
    await others.tokens.add_token(make_token(ends=4_000_000_000.0), generation=7)
    await validator.lookup("token")
    await others.tokens.revoke_token(make_token().digest)
    await until(lambda: validator.cached("token") is None)
    if method == "watch_changes":
        await until(lambda: redis_server.control.pubsub_numsub("{gateway}:changes")[0][1] == 1)
    assert len(errors_in(caplog)) == 1
    await invalidation.stop()
    for store in (mine, others):
        await store.close()


async def test_push_is_followed_after_an_unforeseen_exception_of_the_library(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(redis_server.url)
    failures = [UnforeseenError(), RuntimeError("the transport is closed"), KeyError("slot")]
    connection = store._calls.link._connection  # type: ignore[union-attr]
    original: Callable[[], object] = connection.pubsub

    def pubsub() -> object:
        if failures:
            raise failures.pop(0)
        return original()

    monkeypatch.setattr(connection, "pubsub", pubsub)
    changes: list[None] = []
    watching = asyncio.create_task(
        store.watch_changes(on_change=lambda: changes.append(None), on_gap=lambda: None)
    )
    await until(lambda: redis_server.control.pubsub_numsub("{gateway}:changes")[0][1] == 1)
    await store.clients.add_client(make_client())
    await store.clients.delete_client("shop")
    await until(lambda: bool(changes))
    assert not watching.done()
    assert len(errors_in(caplog)) == 3
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await store.close()


async def test_change_that_can_not_be_applied_sweeps_the_cache(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/a.db")
    await store.clients.add_client(make_client(ends=None))
    await store.tokens.add_token(make_token(ends=4_000_000_000.0), generation=7)
    metrics = Metrics()

    class Stumbling(TokenCache):
        def forget(self, change: Change) -> None:
            raise UnforeseenError

    validator = Stumbling(store.tokens, metrics)
    invalidation = Invalidation(store, validator, metrics, poll_s=0.02)
    await invalidation.start()
    await validator.lookup("token")
    await store.tokens.revoke_token(make_token().digest)
    await until(lambda: validator.cached("token") is None)
    await invalidation.stop()
    await store.close()


async def test_each_task_goes_on_after_an_unforeseen_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.periodic.PURGE_S", 0.01)
    monkeypatch.setattr("gateway.app.periodic.CENSUS_S", 0.01)
    monkeypatch.setattr("gateway.app.periodic.FIRST_PAUSE_S", 0.01)
    store = await open_store(f"sqlite:///{tmp_path}/a.db")
    methods: Sequence[str] = ("purge", "census", "put_record", "find_hazards")
    failing = Failing(store, dict.fromkeys(methods, 2))
    gateway_tasks = PerGatewayTasks(
        store=failing,  # type: ignore[arg-type]
        metrics=Metrics(),
        client_expiry_warning_s=0,
        expired_client_retention_s=0,
    )
    gateway_tasks.start()
    await until(lambda: sum("succeeds again" in one.message for one in caplog.records) == 4)
    assert len(errors_in(caplog)) == 4
    await gateway_tasks.stop()
    await store.close()


async def test_task_leaves_outages_of_the_store_to_the_log_of_the_store(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = 0

    async def task() -> None:
        nonlocal runs
        runs += 1
        raise StoreUnavailableError("away")

    periodic = PeriodicTasks()
    periodic.repeat(task, 0.001)
    await until(lambda: runs > 5)
    await periodic.stop()
    assert not caplog.records
