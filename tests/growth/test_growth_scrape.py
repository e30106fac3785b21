"""A scrape of /metrics where there are very many routes."""

from __future__ import annotations

import re
import threading

from support.growth import assert_does_not_grow, assert_grows_linearly, cost_of

from gateway.metrics import Metrics
from gateway.workers.snapshots import Totals, take_snapshot


def metrics_of(routes: int, *, used: bool) -> Metrics:
    metrics = Metrics()
    for number in range(routes):
        counts = metrics.data_plane.route(f"route-{number}")
        metrics.data_plane.upstream(f"upstream-{number}")
        if used:
            counts.record("GET", 200, "upstream", 0.01)
    return metrics


def test_page_grows_with_the_routes_that_are_used() -> None:
    assert_grows_linearly(lambda n: cost_of(metrics_of(n, used=True).render), 100)


def test_route_that_was_never_used_has_no_series() -> None:
    metrics = metrics_of(3, used=False)
    metrics.data_plane.route("route-1").record("GET", 200, "upstream", 0.01)
    page = metrics.render().decode()
    assert 'gateway_request_duration_seconds_count{route="route-1"} 1.0' in page
    assert "route-0" not in page
    assert "upstream-0" not in page
    assert_does_not_grow(lambda n: len(metrics_of(n, used=False).render()), 100)


def test_pages_of_workers_are_added_up_in_proportion() -> None:
    def render(routes: int) -> int:
        totals = Totals()
        for number in (1, 2):
            totals.update(number, take_snapshot(metrics_of(routes, used=True).registry))
        own = Metrics()
        return cost_of(lambda: totals.render(own.registry))

    assert_grows_linearly(render, 50)


async def test_page_is_made_off_the_event_loop_and_counts_its_tasks() -> None:
    metrics = Metrics()
    threads = []

    def read() -> bytes:
        threads.append(threading.current_thread())
        return metrics.render()

    page = await metrics.read_in_thread(read)
    assert threads != [threading.main_thread()]
    assert re.search(rb"^gateway_event_loop_tasks [1-9]", page, re.MULTILINE)
