"""One page of metrics for several processes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import Metrics
from gateway.workers.snapshots import Totals, add_up, take_snapshot

NONE = CollectorRegistry()


class Worker:
    """The metrics of a process, told to totals as one worker."""

    def __init__(self, totals: Totals, number: int) -> None:
        self.metrics = Metrics()
        self.route = self.metrics.data_plane.route("api")
        self._totals, self._number = totals, number

    def serve(self, times: int) -> None:
        for _ in range(times):
            self.route.record("GET", 200, "upstream", 0.01)

    def report(self) -> None:
        self._totals.update(self._number, take_snapshot(self.metrics.registry))


def read(totals: Totals, own: CollectorRegistry = NONE) -> dict[str, float]:
    page = totals.render(own).decode()
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())):
            sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }  # fmt: skip


REQUESTS = "gateway_requests_total,code=200,method=GET,route=api,source=upstream"
BUCKET = "gateway_request_duration_seconds_bucket,le={},route=api"


def test_counts_add_up() -> None:
    totals = Totals()
    for number in (1, 2):
        worker = Worker(totals, number)
        worker.serve(number)
        worker.metrics.data_plane.connections.inc(10)
        worker.metrics.store.operation_seconds.labels("get_token").observe(0.02)
        worker.report()
    samples = read(totals)
    assert samples[REQUESTS] == 3
    assert samples[BUCKET.format("0.005")] == 0
    assert samples[BUCKET.format("0.01")] == samples[BUCKET.format("+Inf")] == 3
    assert samples["gateway_request_duration_seconds_count,route=api"] == 3
    assert samples["gateway_request_duration_seconds_sum,route=api"] == pytest.approx(0.03)
    assert samples["gateway_store_operation_seconds_count,operation=get_token"] == 2
    assert samples["gateway_connections"] == 20
    assert samples["gateway_worker_connections,worker=1"] == 10


async def test_tasks_are_reported_by_worker_and_of_all() -> None:
    totals = Totals()
    Worker(totals, 1).report()
    waiting = [asyncio.create_task(asyncio.sleep(60)) for _ in range(5)]
    Worker(totals, 2).report()
    samples = read(totals)
    for task in waiting:
        task.cancel()
    one, other = (samples[f"gateway_worker_event_loop_tasks,worker={n}"] for n in (1, 2))
    assert other == one + 5
    assert samples["gateway_event_loop_tasks"] == one + other


def test_tasks_are_none_where_no_event_loop_runs() -> None:
    totals = Totals()
    Worker(totals, 1).report()
    assert read(totals)["gateway_event_loop_tasks"] == 0


def test_what_a_process_counted_stays_when_it_ends() -> None:
    totals = Totals()
    first = Worker(totals, 1)
    first.serve(3)
    first.metrics.data_plane.connections.inc(10)
    first.report()
    before = read(totals)
    totals.retire(1)
    ended = read(totals)
    assert ended[REQUESTS] == 3
    assert ended["gateway_worker_cpu_seconds_total,worker=1"] > 0
    assert "gateway_connections" not in ended, "it has none any more"
    second = Worker(totals, 1)
    second.serve(1)
    second.report()
    after = read(totals)
    assert after[REQUESTS] == 4
    cumulative = [name for name in before if "_total" in name or "_bucket" in name]
    assert len(cumulative) > 50
    assert all(after[name] >= ended[name] >= before[name] for name in cumulative)
    totals.retire(1)
    assert read(totals)[REQUESTS] == 4


def test_states_are_as_bad_as_the_worst() -> None:
    totals = Totals()
    for number, is_up in ((1, True), (2, False), (3, True)):
        worker = Worker(totals, number)
        worker.metrics.store.up.set(is_up)
        worker.report()
    assert read(totals)["gateway_store_up"] == 0


def test_what_is_the_same_everywhere_is_shown_once() -> None:
    totals = Totals()
    own = Metrics()
    own.process.config_hash.info({"hash": "abc"})
    for number in (1, 2):
        worker = Worker(totals, number)
        worker.metrics.process.config_hash.info({"hash": "abc"})
        worker.report()
    samples = read(totals, own.registry)
    assert [name for name in samples if "config_hash" in name] == [
        "gateway_config_hash_info,hash=abc"
    ]
    assert samples["gateway_config_hash_info,hash=abc"] == 1
    assert [value for name, value in samples.items() if name.startswith("python_info")] == [1]
    (family,) = add_up([[f for f in take_snapshot(own.registry) if "start_time" in f.name]] * 3)
    assert samples["process_start_time_seconds"] == family.samples[0][2]


def test_worker_that_reported_is_in_the_page_with_the_supervisors_own() -> None:
    totals = Totals()
    own = Metrics()
    own.provider.clients.set(7)
    own.process.worker_restarts.inc()
    Worker(totals, 1).report()
    samples = read(totals, own.registry)
    assert samples["gateway_clients"] == 7
    assert samples["gateway_worker_restarts_total"] == 1


@pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is missing: apt-get install prometheus"
)
def test_page_is_to_the_liking_of_promtool() -> None:
    totals = Totals()
    for number in (1, 2):
        worker = Worker(totals, number)
        worker.serve(2)
        worker.report()
    totals.retire(2)
    reported = subprocess.run(
        ["promtool", "check", "metrics"],
        input=totals.render(Metrics().registry), capture_output=True, check=False,
    )  # fmt: skip
    assert (reported.returncode, reported.stdout + reported.stderr) == (0, b"")
