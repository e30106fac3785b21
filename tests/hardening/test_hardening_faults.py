"""Faults under constant load: every request is answered once and rightly, or with a clean error.

The callers and the ledger are those of `make soak`; here, each fault comes alone.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from support.deadlines import until
from support.processes.redis import RedisServer
from support.tiers import slow

from soak.origin import TCP_REPAIR, Origin
from soak.run import Plan, Run
from soak.subject import Subject, running

pytestmark = [slow("faults"), pytest.mark.system]

CALLERS = 8
BROKEN_OFF = "events: IncompleteReadError"
"""What a client sees of a stream of events whose upstream goes."""


@asynccontextmanager
async def under_load(
    directory: Path,
    *,
    store: str | None = None,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    is_ended: bool = False,
    breaks_streams: bool = False,
) -> AsyncIterator[Run]:
    """A gateway with callers, who have been answered and go on until the block ends; with
    `is_ended` the block ends the gateway, with `breaks_streams` the upstream breaks off responses
    that have begun."""
    origin = Origin()
    await origin.start()
    store = store or f"sqlite:///{directory}/gateway.db"
    plan = Plan(directory, store, workers=workers, callers=CALLERS, pace_s=0.005)
    subject = Subject(directory, origin.port, workers=workers, store=store, environment=environment)
    with running(subject):
        subject.create_client()
        async with httpx.AsyncClient() as client:
            run = Run(plan, subject, origin, client)
            await run.fill()
            traffic = asyncio.create_task(run.traffic.run())
            await expect_responses(run)
            yield run
            if not is_ended:
                await expect_responses(run)
            run.traffic.stop()
            await traffic
        assert is_ended or await asyncio.to_thread(subject.stop) == 0
    await origin.stop()
    run.ledger.upstream.update(origin.seen)
    assert run.ledger.wrong == []
    assert run.ledger.doubled == 0
    unexcused = {name for name in run.ledger.lost if not name.endswith("(fault)")}
    assert unexcused <= ({BROKEN_OFF} if breaks_streams else set())
    assert "Traceback" not in subject.log()


async def expect_responses(run: Run, count: int = 200) -> None:
    """Wait until so many more requests of the rightful were answered rightly."""
    goal = run.ledger.right["GET ok"] + count // 4
    await until(lambda: run.ledger.right["GET ok"] >= goal)


def has_failed(run: Run, error: str, times: int) -> bool:
    return run.ledger.errors[error] >= times


def has_another_process(run: Run, before: set[int]) -> bool:
    return len({one.pid for one in run.subject.processes} - before) == 1


async def test_upstream_that_goes_and_comes_costs_clean_errors_only(tmp_path: Path) -> None:
    async with under_load(tmp_path, breaks_streams=True) as run:
        for times in range(1, 4):
            await run.origin.stop()
            goal = 10 * times
            await until(partial(has_failed, run, "502 upstream_connect_failed", goal))
            await run.origin.start()
            await expect_responses(run)
    assert run.ledger.right["broken response stays broken"]


async def test_upstream_that_holds_still_is_a_clean_504(tmp_path: Path) -> None:
    async with under_load(tmp_path) as run:
        run.origin.speaks.clear()
        await until(lambda: run.ledger.errors["504 upstream_response_timeout"] >= CALLERS // 2)
        run.origin.speaks.set()


async def test_upstream_whose_connections_are_half_open_costs_clean_errors_only(
    tmp_path: Path,
) -> None:
    _need_half_open_connections()
    async with under_load(tmp_path, breaks_streams=True) as run:
        for _ in range(5):
            run.origin.vanish()
            await expect_responses(run)
    assert run.ledger.errors["504 upstream_response_timeout"] > 0  # what was in hand each time


def _need_half_open_connections() -> None:
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError:
            pytest.skip("needs Linux and the right to administer the network (CAP_NET_ADMIN)")


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_costs_no_request_that_was_accepted(tmp_path: Path, workers: int) -> None:
    async with under_load(tmp_path, workers=workers, is_ended=True) as run:
        before = run.ledger.right.total()
        assert await asyncio.to_thread(run.subject.stop) == 0
        await until(lambda: run.ledger.errors["connection refused"] >= CALLERS)
    assert run.ledger.right.total() > before
    assert run.ledger.lost.total() == 0


async def test_killed_worker_takes_only_what_it_had_in_hand(tmp_path: Path) -> None:
    async with under_load(tmp_path, workers=2) as run:
        for _ in range(2):
            before = {one.pid for one in run.subject.processes}
            await run.kill_worker()
            await until(partial(has_another_process, run, before))
            await expect_responses(run)
    assert run.ledger.lost.total() <= 2 * CALLERS


@pytest.mark.parametrize("workers", [1, 2])
async def test_reloads_good_and_bad_cost_no_request(tmp_path: Path, workers: int) -> None:
    async with under_load(tmp_path, workers=workers) as run:
        for _ in range(4):
            await run.reload()
            await run.reload_badly()
    assert run.faults == []
    assert run.ledger.lost.total() == run.ledger.errors.total() == 0


async def test_store_that_is_killed_and_comes_back_never_lets_a_unauthenticated_client_in(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with under_load(tmp_path, store=redis_server.url) as run:
        await run.revoke()
        redis_server.kill()
        await until(lambda: run.ledger.errors["503 store_unavailable"] > 20)
        redis_server.start()
        before = run.ledger.right["unknown token"]
        await until(lambda: run.ledger.right["unknown token"] > before + 5)
    assert run.ledger.right["revoked token"]


async def issue_many(run: Run, client: httpx.AsyncClient) -> None:
    for _ in range(50):
        await run.subject.issue(client)


async def test_full_disk_is_503_for_who_writes_and_nothing_for_who_reads(tmp_path: Path) -> None:
    async with under_load(tmp_path) as run:
        (process,) = run.subject.processes
        process.rlimit(psutil.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.HTTPStatusError) as refused:
                await issue_many(run, client)
            assert refused.value.response.status_code == 503
            assert "retry-after" in refused.value.response.headers
            await expect_responses(run)
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            process.rlimit(psutil.RLIMIT_FSIZE, unlimited)
            token = ""

            async def is_back() -> bool:
                nonlocal token
                try:
                    token = await run.subject.issue(client)
                except httpx.HTTPStatusError:
                    return False
                return True

            await until(is_back)
            run.tokens.good.append(token)
    assert set(run.ledger.errors) <= {"token issued: 503 temporarily_unavailable"}


async def test_no_descriptor_left_sheds_new_connections_and_recovers(tmp_path: Path) -> None:
    async with under_load(tmp_path) as run:
        (process,) = run.subject.processes
        _, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        # Callers who come back on a new connection are among those that are shed.
        run.excuse(for_s=60)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 2, hard))
        crowd = [_connect(run.subject.port) for _ in range(60)]
        await expect_responses(run)  # those who are connected go on
        process.rlimit(psutil.RLIMIT_NOFILE, (hard, hard))
        for one in crowd:
            one.close()
        await expect_responses(run)
        run.excuse(for_s=0)
        await expect_responses(run)


def _connect(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    return connection


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime: apt-get install libfaketime")
async def test_wall_clock_that_jumps_logs_no_user_out_who_is_not_expired(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with under_load(tmp_path, environment=environment) as run:
        for offset in ("+1800s", "-1800s", "+0"):
            clock.write_text(offset)
            await expect_responses(run, 40)  # each look at the clock reads a file
            await run.revoke()
    assert run.ledger.errors.total() == 0
