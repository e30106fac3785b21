"""The account of a soak finds what may not be."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from support.deadlines import within
from support.tiers import slow

from soak.ledger import Ledger
from soak.run import Plan, Report, evaluate, patiently, soak
from soak.subject import Subject, running
from soak.watch import Sample, Watch, kinds_of, look_at_rest

SOUND = Report(
    ledger=Ledger(),
    before=Sample(0, 100, 50, 8, 20),
    after=Sample(60, 101, 51, 8, 21),
    slope_mib_per_hour=3,
    seconds=600,
    events=["reload"],
)


def test_run_with_clean_errors_and_excused_losses_is_sound() -> None:
    ledger = Ledger()
    ledger.errors["502 upstream_connect_failed"] += 3
    ledger.lost["get: ConnectionResetError (fault)"] += 2
    ledger.upstream["n1"] += 1
    assert evaluate(replace(SOUND, ledger=ledger)) == []


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (replace(SOUND, after=Sample(60, 100, 50, 40, 20)), "connections leaked: 8, then 40"),
        (replace(SOUND, after=Sample(60, 100, 90, 8, 20)), "descriptors leaked: 50, then 90"),
        (replace(SOUND, after=Sample(60, 100, 50, 8, 47)), "tasks leaked: 20, then 47"),
        (replace(SOUND, slope_mib_per_hour=70), "memory grows by 70 MiB/h"),
        (replace(SOUND, slope_mib_per_hour=12, seconds=3600), "memory grows by 12 MiB/h"),
    ],
)
def test_leak_is_a_fault(report: Report, fault: str) -> None:
    assert evaluate(report) == [fault]


def test_wrong_response_lost_request_and_doubled_request_are_faults() -> None:
    ledger = Ledger()
    ledger.add_wrong("GET ok: 200 b'another'")
    ledger.lost["get: TimeoutError"] += 1
    ledger.upstream["n1"] += 2
    assert len(evaluate(replace(SOUND, ledger=ledger))) == 3


async def test_event_calls_again_where_the_store_is_unavailable_for_a_moment() -> None:
    ledger, statuses = Ledger(), iter([503, 502, 200, 400])

    async def call() -> int:
        response = httpx.Response(next(statuses), request=httpx.Request("POST", "http://gateway"))
        return response.raise_for_status().status_code

    assert await patiently(call, ledger) == 200
    assert ledger.errors == {"event: 503": 1, "event: 502": 1}
    with pytest.raises(httpx.HTTPStatusError):
        await patiently(call, ledger)


def slope_of(memory_at: Callable[[int], float], seconds: int = 600) -> float:
    watch = Watch.__new__(Watch)
    watch.samples = [Sample(at, memory_at(at), 0, 0) for at in range(seconds)]
    return watch.slope_mib_per_hour()


def test_slope_is_that_of_the_second_half() -> None:
    assert slope_of(lambda at: 50.0 + at if at < 300 else 350 + at / 60) == pytest.approx(60)


def test_slope_of_a_leak_is_found_in_noise_and_where_it_goes_by_steps() -> None:
    chance = random.Random(1)  # a test that can be repeated
    noisy = slope_of(lambda at: 200 + at * 200 / 3600 + chance.uniform(-3, 3))
    assert noisy == pytest.approx(200, rel=0.2)
    assert slope_of(lambda at: 200 + at // 11) == pytest.approx(3600 / 11, rel=0.1)
    level = slope_of(lambda at: 200 + chance.uniform(-3, 3))
    assert abs(level) < 20


async def test_what_a_running_gateway_holds_is_seen_and_so_is_that_it_lets_go(
    tmp_path: Path,
) -> None:
    store = f"sqlite:///{tmp_path}/gateway.db"
    with running(Subject(tmp_path, 9, workers=2, store=store)) as subject:
        idle = await look_at_rest(subject)
        assert len(idle.rss_by_process) == 4  # the supervisor, the fork server, and two workers
        async with AsyncExitStack() as opened:
            for _ in range(20):  # the admin listener has a task for each connection
                await opened.enter_async_context(connection(subject.admin_port))
            async with within():
                while leaks(idle, await look_at_rest(subject)) != [
                    "connections",
                    "descriptors",
                    "tasks",
                ]:
                    pass
        async with within():
            while leaks(idle, await look_at_rest(subject)):
                pass


def test_descriptors_are_counted_by_what_they_are_of() -> None:
    process = psutil.Process()
    before = kinds_of(process)
    with socket.create_server(("127.0.0.1", 0)) as server, server.dup():
        reading, writing = os.pipe()
        more = kinds_of(process) - before
        os.close(reading)
        os.close(writing)
    assert more == {"AF_INET SOCK_STREAM LISTEN": 1, "socket": 1, "pipe": 2}


def leaks(before: Sample, after: Sample) -> list[str]:
    """What an account of a run that went from one to the other would name."""
    faults = evaluate(replace(SOUND, before=before, after=after))
    return [fault.split()[0] for fault in faults]


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[None]:
    """An open connection that says nothing."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield
    finally:
        writer.close()
        await writer.wait_closed()


@slow("under load")
async def test_callers_of_each_protocol_lose_nothing_but_to_kills_and_faults(
    tmp_path: Path,
) -> None:
    plan = Plan(
        tmp_path,
        f"sqlite:///{tmp_path}/gateway.db",
        seconds=12,
        callers=2,
        h2_callers=4,
        grpc_callers=4,
        socket_callers=2,
        pace_s=0.02,
        events=("kill_worker", "reload", "restart_upstream", "revoke", "reload_badly"),
        warm_up_s=1,
    )
    report = await soak(plan)
    assert report.faults == [], str(report)
    assert set(plan.events) <= set(report.events)
    kinds = ("GET ok", "POST ok", "no token", "revoked token", "API key", "MCP tool", "events",
             "workload's token issued")  # fmt: skip
    streams = ("unary", "server stream", "client stream", "both stream", "server's status")
    assert {f"{protocol}{kind}" for protocol in ("", "h2 ") for kind in kinds} | {
        f"grpc {kind}" for kind in (*streams, "no token", "revoked token")
    } | {"socket"} <= set(report.ledger.right)
