"""Keeps a group of workers: started together, replaced one by one, ended together.

Nothing is lost when a worker ends. Its listening sockets stay open here,
and another worker accepts from them until the replacement is ready, so connections that
had reached its queue are served. What it had counted stays counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from gateway.background import RetryPauses
from gateway.history.ring import Recent
from gateway.rate_limit import LocalRateLimits
from gateway.upstream.status import UpstreamState
from gateway.workers.config_rollout import ConfigRollout
from gateway.workers.messages import (
    Acquire,
    Adopt,
    Collect,
    ConfigResult,
    Drain,
    Failed,
    ForAll,
    Granted,
    Message,
    Ready,
    Release,
    Sampled,
    Snapshot,
    Start,
    Stop,
    UpstreamsReported,
)
from gateway.workers.process import Launch, WorkerProcess
from gateway.workers.snapshots import Totals

COLLECT_S = 0.5
"""How long a worker has to report its metrics; then its last report is used."""
STEADY_S = 10.0
"""A worker that lived so long did not fail to start."""
MAX_PAUSE_S = 15.0
GIVE_UP_AFTER = 5
"""Starts that failed in a row, while no worker serves."""
STOP_S = 10.0
LOOK_S = 1.0

_log = logging.getLogger(__name__)


class WorkerStartError(Exception):
    """The workers could not be started. The text is the reason that a worker gave."""

    def __init__(self, reason: str, place: tuple[str | int, ...] = ()) -> None:
        """`place` is the key of the configuration that it is about."""
        super().__init__(reason)
        self.place = place


class WorkerGroup:
    """Workers 1 to `size`, kept alive until they are drained or stopped."""

    def __init__(
        self,
        size: int,
        *,
        launch: Launch,
        start: Callable[[], Start],
        receive: Callable[[ForAll], None],
        on_restart: Callable[[], None],
        recent: Recent | None = None,
        silence_s: float = 30.0,
    ) -> None:
        self._numbers = range(1, size + 1)
        self._launch = launch
        self._start_message = start
        self._receive = receive
        self._on_restart = on_restart
        self._recent = recent or Recent()
        self._silence_s = silence_s
        """A worker that sends nothing for this long is replaced."""
        self.totals = Totals()
        self.upstreams: dict[int, list[UpstreamState]] = {}
        """How the upstreams of each worker are."""
        self.given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the group is no more, if all attempts to have a worker failed."""
        self._blamed: tuple[str | int, ...] = ()
        """The key of the configuration that the worker which failed last named."""
        self._workers: dict[int, WorkerProcess] = {}
        self._adopters: dict[int, int] = {}
        """Whose connections are accepted by another worker, and by which."""
        self._failures = dict.fromkeys(self._numbers, 0)
        self._is_started = False
        self._ending = asyncio.Event()
        self._changed = asyncio.Event()
        self._collections = 0
        self._rates = LocalRateLimits()
        self._tasks: list[asyncio.Task[None]] = []
        self._rollout = ConfigRollout()

    @property
    def ready(self) -> list[WorkerProcess]:
        """The workers that serve."""
        return [worker for worker in self._workers.values() if worker.is_ready]

    async def start(self) -> None:
        """Start all workers and wait until they serve.

        Raises `WorkerStartError` where one can't; the others are ended then.
        """
        self._tasks = [asyncio.create_task(self._keep(number)) for number in self._numbers]
        self._tasks.append(asyncio.create_task(self._watch()))
        for task in self._tasks:
            task.add_done_callback(self._end_of_keeping)
        while len(self.ready) < len(self._numbers) and not self.given_up.done():
            self._changed.clear()
            await self._changed.wait()
        if self.given_up.done():
            await self.stop()
            raise WorkerStartError(self.given_up.result(), self._blamed)
        self._is_started = True

    def broadcast(self, message: Message, *, but: int = 0) -> None:
        """Send a message to all workers, except the one it came from."""
        for number, worker in self._workers.items():
            if number != but:
                worker.send(message)

    async def roll_out(self, config: bytes, *, commit: Callable[[], None]) -> None:
        """Have every worker serve by another configuration, or none.

        `commit` is called as soon as all are able to: from then on `start` has to give new
        workers this configuration. Raises `RolloutError` where one is not able to.
        """
        await self._rollout.roll_out(config, lambda: self.ready, commit)

    @property
    def generation(self) -> int:
        """Of the configuration that workers serve by."""
        return self._rollout.generation

    def _keep_up(self, worker: WorkerProcess) -> None:
        """See to it that a worker which started before a rollout was over serves by it, too."""
        if worker.generation != self._rollout.generation:
            self._rollout.catch_up(worker)

    async def collect(self) -> None:
        """Bring `totals` up to date."""
        self._collections += 1
        loop = asyncio.get_running_loop()
        responses = []
        for worker in self.ready:
            response = worker.responses[self._collections] = loop.create_future()
            worker.send(Collect(self._collections))
            responses.append(response)
        if responses:
            await asyncio.wait(responses, timeout=COLLECT_S)
        for worker in self._workers.values():
            worker.responses.pop(self._collections, None)

    async def drain(self, *, grace_s: float) -> None:
        """Let every worker finish what it has in flight, for `grace_s` seconds, and end."""
        self._ending.set()
        self.broadcast(Drain(grace_s))
        keeping = self._tasks[: len(self._numbers)]
        await asyncio.wait(keeping, timeout=grace_s + STOP_S)

    async def stop(self) -> None:
        """End every worker now; those that don't are killed."""
        self._ending.set()
        self.broadcast(Stop())
        *keeping, watching = self._tasks
        _, late = await asyncio.wait(keeping, timeout=STOP_S)
        while late:
            for worker in self._workers.values():
                _log.warning("worker %d does not stop: killing it", worker.number)
                worker.kill()
            _, late = await asyncio.wait(late, timeout=LOOK_S)
        watching.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, number: int) -> None:
        """Have a worker `number`, one process after the other."""
        loop = asyncio.get_running_loop()
        while not self._ending.is_set():
            born = loop.time()
            how = await self._live(number)
            if self._ending.is_set():
                return
            is_steady = loop.time() - born >= STEADY_S
            self._failures[number] = 1 if is_steady else self._failures[number] + 1
            if self._is_hopeless():
                self._give_up(how)
                return
            failures = self._failures[number]
            pause_s = 0.0 if failures == 1 else min(MAX_PAUSE_S, 2.0**failures / 8)
            _log.warning("%s; restarting worker %d in %g s", how, number, pause_s)
            self._on_restart()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause_s)

    def _is_hopeless(self) -> bool:
        if not self._is_started:
            return True
        return not self.ready and min(self._failures.values()) >= GIVE_UP_AFTER

    def _give_up(self, reason: str) -> None:
        if not self.given_up.done():
            self.given_up.set_result(reason)
        self._changed.set()

    def _end_of_keeping(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _log.critical("the supervisor failed", exc_info=error)
            self._give_up("the supervisor failed")

    async def _live(self, number: int) -> str:
        """From the start of a process to its end. Returns how it ended."""
        try:
            worker = await WorkerProcess.spawn(number, self._launch, self._start_message())
        except OSError as error:
            return f"worker {number} could not be started: {error.strerror}"
        self._workers[number] = worker
        if self._ending.is_set():
            worker.send(Stop())
        failures = RetryPauses(f"messages of worker {number}")
        while (message := await worker.receive()) is not None:
            try:
                self._obey(worker, message)
            except Exception as error:  # of one worker, which must not end all of them
                failures.fail(error)
        # From here on its sockets have no owner.
        worker.is_ready = False
        self._share_sockets()
        self.totals.retire(number)
        self._recent.forget(number)
        self.upstreams.pop(number, None)
        how = await worker.wait()
        del self._workers[number]
        return worker.failure or how

    def _obey(self, worker: WorkerProcess, message: Message) -> None:
        match message:
            case Ready():
                worker.is_ready = True
                _log.info("worker %d (pid %d) is ready", worker.number, worker.pid)
                self._share_sockets()
                self._changed.set()
                self._keep_up(worker)
            case ConfigResult():
                if worker.config_result is not None and not worker.config_result.done():
                    worker.config_result.set_result(message.problem)
            case Failed():
                worker.failure, self._blamed = message.reason, message.place
            case Snapshot():
                self.totals.update(worker.number, message.families)
                response = worker.responses.pop(message.number, None)
                if response is not None and not response.done():
                    response.set_result(None)
            case Sampled():
                self._recent.receive(worker.number, message.part)
            case UpstreamsReported():
                self.upstreams[worker.number] = message.states
            case Acquire():
                worker.send(Granted(message.number, self._rates.acquire(message.demands)))
            case _ if isinstance(message, ForAll):
                self.broadcast(message, but=worker.number)
                self._receive(message)

    def _share_sockets(self) -> None:
        """Let there be one worker for the connections of each."""
        if self._ending.is_set() or not self._is_started:
            return
        ready = {worker.number: worker for worker in self.ready}
        self._adopters = {of: by for of, by in self._adopters.items() if by in ready}
        for number in self._numbers:
            adopter = self._adopters.get(number)
            if number in ready:
                if adopter is not None:
                    ready[adopter].send(Release(number))
                    del self._adopters[number]
            elif adopter is None and ready:
                burdens = list(self._adopters.values())
                chosen = min(ready, key=burdens.count)
                ready[chosen].send(Adopt(number))
                self._adopters[number] = chosen

    async def _watch(self) -> None:
        """Replace workers that hang.

        Looks are counted rather than time, because where the whole machine stood still,
        no worker could report anything.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            for worker in self._workers.values():
                worker.silence += 1
                if worker.silence * LOOK_S > self._silence_s:
                    _log.error(
                        "worker %d (pid %d) has been silent for %g s: killing it",
                        worker.number,
                        worker.pid,
                        self._silence_s,
                    )
                    worker.kill()
