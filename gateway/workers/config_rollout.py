"""Has all workers change to another configuration, or none of them.

In two steps, as with any change that several have to agree on: first each worker builds what it
would need and says whether it could, and nothing of it serves. Only if all could do they get the
message to change, which can't fail any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from gateway.workers.messages import CommitConfig, DiscardConfig, PrepareConfig
from gateway.workers.process import WorkerProcess

PREPARE_S = 30.0
COMMIT_S = 10.0

_log = logging.getLogger(__name__)


class RolloutError(Exception):
    """A worker can't serve by a configuration. The text says which, and why."""


class ConfigRollout:
    """Configurations are numbered as they are activated, from 0, which the workers start with."""

    def __init__(self) -> None:
        self.generation = 0
        self._config = b""
        self._attempts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def roll_out(
        self,
        config: bytes,
        ready: Callable[[], Sequence[WorkerProcess]],
        commit: Callable[[], None],
    ) -> None:
        self._attempts += 1
        number = self._attempts
        requested = ready()
        problems = await _fetch(requested, PrepareConfig(number, config), PREPARE_S)
        if problems:
            for worker in requested:
                worker.send(DiscardConfig(number))
            raise RolloutError("; ".join(problems))
        self.generation, self._config = number, config
        commit()
        await self._commit(requested)
        # Those who became ready in the meantime had been started with the one before.
        late = [worker for worker in ready() if worker.generation != number]
        for worker in late:
            await self._catch_up(worker)

    def catch_up(self, worker: WorkerProcess) -> None:
        """Have a worker change that was started with an older configuration."""
        task = asyncio.create_task(self._catch_up(worker))
        self._tasks.add(task)
        task.add_done_callback(self._end_of_catching_up)

    def _end_of_catching_up(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a worker could not be brought up to date", exc_info=error)

    async def _catch_up(self, worker: WorkerProcess) -> None:
        problems = await _fetch([worker], PrepareConfig(self.generation, self._config), PREPARE_S)
        if not problems:
            await self._commit([worker])
        else:
            _log.error("%s; killing it to restart it with the new configuration", problems[0])
            worker.kill()

    async def _commit(self, workers: Sequence[WorkerProcess]) -> None:
        for worker in workers:
            worker.generation = self.generation
        # One that ends now is restarted with this configuration; one that hangs is replaced.
        for problem in await _fetch(workers, CommitConfig(self.generation), COMMIT_S):
            _log.error("%s while it activated the new configuration", problem)


async def _fetch(
    workers: Iterable[WorkerProcess], message: PrepareConfig | CommitConfig, timeout_s: float
) -> list[str]:
    """Return the problems that workers reported."""
    loop = asyncio.get_running_loop()
    responses: dict[WorkerProcess, asyncio.Future[str]] = {}
    for worker in workers:
        responses[worker] = worker.config_result = loop.create_future()
        worker.send(message)
    if responses:
        await asyncio.wait(responses.values(), timeout=timeout_s)
    problems = []
    for worker, response in responses.items():
        worker.config_result = None
        problem = (
            response.result() if response.done() else f"worker {worker.number} does not respond"
        )
        if problem:
            problems.append(problem)
    return sorted(set(problems))
