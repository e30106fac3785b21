"""The longest stall of the event loop is a metric."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support.deadlines import within
from support.running_gateway import StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.app.loop_stalls import PERIOD_S, WINDOW_S, StallWatch
from gateway.metrics import Metrics
from gateway.workers.snapshots import Totals, take_snapshot

METRIC = "gateway_event_loop_longest_stall_seconds"


async def test_longest_stall_is_kept_for_one_to_two_windows() -> None:
    now = 1000.0
    watch = StallWatch(clock=lambda: now)
    watch.start()
    try:
        for late_s, longest_s in ((0.0, 0.0), (0.3, 0.3), (0.1, 0.3)):
            now += PERIOD_S + late_s
            watch._wake()
            assert watch.longest_s() == pytest.approx(longest_s)
        now += WINDOW_S - 1
        watch.start()
        now += PERIOD_S
        watch._wake()
        assert watch.longest_s() == pytest.approx(0.3), "the window before counts, too"
        for _ in range(2):
            now += WINDOW_S + 1
            watch.start()
            now += PERIOD_S
            watch._wake()
        assert watch.longest_s() == pytest.approx(0.0)
    finally:
        watch.stop()


async def test_work_that_holds_the_loop_up_is_seen(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url)
    released = threading.Event()
    timer = threading.Timer(0.5, released.set)
    timer.start()
    released.wait()  # as a call that does not return would
    async with within(30):
        while await gateway.metric(METRIC) < 0.5 - 2 * PERIOD_S:
            await asyncio.sleep(PERIOD_S)


def test_longest_stall_of_workers_is_that_of_the_worst() -> None:
    totals = Totals()
    for number, longest_s in ((1, 0.25), (2, 0.75), (3, 0.5)):
        metrics = Metrics()
        metrics.process.longest_stall.set(longest_s)
        totals.update(number, take_snapshot(metrics.registry))
    assert f"{METRIC} 0.75" in totals.render(Metrics().registry).decode()
