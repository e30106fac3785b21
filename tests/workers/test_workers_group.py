"""The group that keeps workers, with processes that follow a script."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry
from support.deadlines import until

from gateway.workers import group as group_module
from gateway.workers.group import WorkerGroup, WorkerStartError
from gateway.workers.messages import ClientFailed, ForAll, Message, Revoked, Start
from gateway.workers.process import WorkerProcess, execute

SCRIPT = str(Path(__file__).with_name("scripted_worker.py"))
LONG_S = 20.0


class Observed:
    """A group, what it heard, and how often it replaced somebody."""

    def __init__(self, size: int, script: str, silence_s: float) -> None:
        self.script = script
        self.received: list[ForAll] = []
        self.restarts = 0
        self.group = WorkerGroup(
            size,
            launch=execute(
                lambda number, channel: [sys.executable, SCRIPT, str(number), str(channel)], []
            ),
            start=lambda: Start("1", self.script.encode(), []),
            receive=self.received.append,
            on_restart=self.count,
            silence_s=silence_s,
        )

    def count(self) -> None:
        self.restarts += 1

    def worker(self, number: int) -> WorkerProcess:
        (found,) = (worker for worker in self.group.ready if worker.number == number)
        return found

    async def reported(self) -> str:
        """What the workers have heard, as a page of metrics."""
        await self.group.collect()
        return self.group.totals.render(CollectorRegistry()).decode()


StartGroup = Callable[..., Awaitable[Observed]]


@pytest.fixture
async def start() -> AsyncIterator[StartGroup]:
    """Starts groups by `await start(size, script)`, and ends them."""
    started: list[Observed] = []

    async def start_one(size: int = 2, script: str = "", silence_s: float = 30.0) -> Observed:
        observed = Observed(size, script, silence_s)
        await observed.group.start()
        started.append(observed)
        return observed

    yield start_one
    for observed in started:
        await observed.group.stop()


async def test_group_is_started_when_all_workers_are_ready(start: StartGroup) -> None:
    observed = await start(3)
    assert sorted(worker.number for worker in observed.group.ready) == [1, 2, 3]
    pids = {worker.pid for worker in observed.group.ready}
    assert len(pids) == 3
    await observed.group.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert observed.restarts == 0


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("fail", "the certificate is missing"),
        ("die", r"worker \d was killed by signal 9 \(Killed\)"),
    ],
)
async def test_worker_that_cannot_start_ends_the_start(
    start: StartGroup, script: str, reason: str
) -> None:
    with pytest.raises(WorkerStartError, match=f"^{reason}$"):
        await start(script=script)


async def test_command_that_cannot_be_run_ends_the_start() -> None:
    observed = Observed(2, "", 30.0)
    observed.group._launch = execute(lambda number, channel: ["/nowhere/python"], [])
    with pytest.raises(WorkerStartError, match="could not be started: No such file"):
        await observed.group.start()


async def test_dead_worker_is_replaced_and_its_counts_stay(
    start: StartGroup, caplog: pytest.LogCaptureFixture
) -> None:
    observed = await start()
    assert "heard_total 2.0" in await observed.reported()
    first = observed.worker(1).pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: first not in {w.pid for w in observed.group.ready})
    assert "heard_total 2.0" in await observed.reported()
    await until(lambda: len(observed.group.ready) == 2)
    assert "heard_total 3.0" in await observed.reported()
    assert observed.restarts == 1
    assert "worker 1 was killed by signal 9 (Killed); restarting worker 1 in 0 s" in caplog.text


async def test_another_worker_accepts_in_the_place_of_a_dead_one(start: StartGroup) -> None:
    observed = await start()
    observed.script = "die"  # so that no replacement lives
    os.kill(observed.worker(1).pid, signal.SIGKILL)
    await until(lambda: len(observed.group.ready) == 1)
    assert "Adopt(number=1)" in await observed.reported()
    observed.script = ""
    await until(lambda: len(observed.group.ready) == 2)
    assert "Release(number=1)" in await observed.reported()


async def test_worker_that_comes_back_first_accepts_for_all_that_are_dead(
    start: StartGroup,
) -> None:
    observed = await start(3)
    observed.script = "die"
    for number in (1, 2, 3):
        os.kill(observed.worker(number).pid, signal.SIGKILL)
    await until(lambda: not observed.group.ready)
    observed.script = ""
    await until(lambda: len(observed.group.ready) == 3)
    page = await observed.reported()
    assert page.count("Adopt(") == page.count("Release(")
    assert observed.group._adopters == {}


async def test_group_without_hope_gives_up(
    start: StartGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "GIVE_UP_AFTER", 2)
    observed = await start()
    observed.script = "fail"
    for number in (1, 2):
        os.kill(observed.worker(number).pid, signal.SIGKILL)
    await until(observed.group.given_up.done)
    assert observed.group.given_up.result() == "the certificate is missing"


@pytest.mark.parametrize("message", [Revoked(client_id="shop"), ClientFailed("shop", "192.0.2.1")])
async def test_what_concerns_all_goes_to_the_others_and_to_the_supervisor(
    start: StartGroup, message: ForAll
) -> None:
    observed = await start(3)
    group = observed.group
    group._obey(observed.worker(1), message)
    assert observed.received == [message]
    assert (await observed.reported()).count(f'message="{escaped(message)}"') == 1
    assert f'message="{escaped(message)}"}} 2.0' in await observed.reported()


def escaped(message: Message) -> str:
    return repr(message).replace('"', '\\"')


async def test_worker_that_hangs_is_replaced(
    start: StartGroup, caplog: pytest.LogCaptureFixture
) -> None:
    observed = await start(silence_s=2.0)
    hanging, other = observed.worker(1).pid, observed.worker(2)
    os.kill(hanging, signal.SIGSTOP)

    def is_replaced() -> bool:
        other.silence = 0  # as if it had told its metrics
        return len(observed.group.ready) == 2 and observed.worker(1).pid != hanging

    await until(is_replaced)
    assert f"worker 1 (pid {hanging}) has been silent for 2 s" in caplog.text
    assert other.pid == observed.worker(2).pid


async def test_worker_that_does_not_report_its_metrics_delays_no_scrape(start: StartGroup) -> None:
    observed = await start(script="sulk")
    assert "heard_total" not in await observed.reported()
    assert not any(worker.responses for worker in observed.group.ready)


async def test_worker_that_talks_nonsense_is_replaced(
    start: StartGroup, caplog: pytest.LogCaptureFixture
) -> None:
    observed = await start()
    observed.script = "babble"
    os.kill(observed.worker(1).pid, signal.SIGKILL)
    await until(lambda: observed.restarts == 2)
    assert "a message between processes can't be read" in caplog.text
    observed.script = ""


async def test_worker_that_does_not_end_is_killed(
    start: StartGroup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group_module, "STOP_S", 0.2)
    observed = await start(script="stubborn")
    pids = {worker.pid for worker in observed.group.ready}
    await observed.group.drain(grace_s=0.1)
    assert all(psutil.pid_exists(pid) for pid in pids)
    await observed.group.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "worker 1 does not stop: killing it" in caplog.text


async def test_drained_workers_end_and_are_not_replaced(start: StartGroup) -> None:
    observed = await start()
    await observed.group.drain(grace_s=5)
    assert observed.group.ready == []
    assert observed.restarts == 0


async def test_message_that_can_not_be_processed_ends_neither_worker_nor_group(
    start: StartGroup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    observed = await start(2)
    monkeypatch.setattr(observed.group.totals, "update", lambda *_: 1 / 0)
    pids = {worker.pid for worker in observed.group.ready}
    await observed.group.collect()
    await observed.group.collect()
    assert not observed.group.given_up.done()
    assert {worker.pid for worker in observed.group.ready} == pids
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2, "one for each worker"
    monkeypatch.undo()
    assert await observed.reported()
