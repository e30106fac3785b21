"""A gateway in several processes: this one keeps the workers, and what there is one of.

It opens the listening sockets and the admin listener, runs the periodic tasks of
the gateway as a whole, and makes one page of all metrics. Requests are served by the
workers (`gateway.app.worker`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Collection, Sequence
from functools import partial

from gateway import __version__
from gateway.app.build.listeners import group_limiter
from gateway.app.build.provider import provider_rules
from gateway.app.reloading.reloader import ReloadError
from gateway.app.service import Service
from gateway.config import Config, LoadedConfig
from gateway.downstream.sockets import Sockets, close_sockets
from gateway.downstream.systemd import Activated
from gateway.oauth.models import Change
from gateway.upstream.status import UpstreamState
from gateway.workers.config_rollout import RolloutError
from gateway.workers.forks import ForkServer
from gateway.workers.group import WorkerGroup
from gateway.workers.limits import GroupLimiter
from gateway.workers.messages import ForAll, Message, Revoked, SetLogLevel, Start
from gateway.workers.process import Process, execute

_log = logging.getLogger(__name__)

WORKER = "gateway.app.worker"


class Supervisor(Service):
    """A gateway in several processes."""

    _group: WorkerGroup | None = None

    def __init__(
        self,
        config: Config,
        *,
        loaded: LoadedConfig | None = None,
        activated: Activated | None = None,
        forks: ForkServer | None = None,
    ) -> None:
        """`forks` is where workers come from; without it, they are started as programs."""
        super().__init__(config, loaded=loaded, activated=activated)
        self._forks = forks
        if forks is not None:
            self._stack.callback(forks.close)

    async def _start(self) -> None:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise OSError("workers above 1 need SO_REUSEPORT, which this system lacks")
        await super()._start()

    def _make_limiter(self) -> GroupLimiter:
        self._limiter = group_limiter(self._config, self._broadcast)
        return self._limiter

    def _announce_level(self, level: str) -> None:
        self._broadcast(SetLogLevel(level))

    def _forget(self, change: Change) -> None:
        self._broadcast(Revoked.of(change))

    async def _serve(self) -> None:
        config, stack, sockets, limiter = self._config, self._stack, self._sockets, self._limiter
        turn = _open_turn()
        stack.callback(os.close, turn)

        def begin() -> Start:
            generation = self._group.generation if self._group else 0
            return Start(
                __version__,
                pickle.dumps(self._config),
                list(limiter.failing()),
                generation,
                self.log_level.get(),
            )

        def receive(message: ForAll) -> None:
            if not isinstance(message, Revoked):
                limiter.receive(message)

        def command(number: int, channel: int) -> Sequence[str]:
            authz = ":".join(_descriptors(self._authz_shares))
            redirect = ":".join(_descriptors(self._redirect_shares))
            return [*_python(), WORKER, f"--number={number}",
                    f"--channel={channel}", f"--turn={turn}", f"--authz={authz}",
                    f"--redirect={redirect}",
                    *(["--activated"] if sockets.is_activated else []),
                    *_descriptors(sockets.shares)]  # fmt: skip

        inherited = [
            turn,
            *(
                opened.fileno()
                for share in (*sockets.shares, *self._authz_shares, *self._redirect_shares)
                for opened in share
            ),
        ]
        execute_worker = execute(command, inherited)

        async def launch(number: int, channel: socket.socket) -> Process:
            if self._forks is None:
                return await execute_worker(number, channel)
            descriptors = [channel.fileno(), *inherited]
            arguments = command(number, channel.fileno())
            arguments = arguments[arguments.index(WORKER) :]
            request = json.dumps({"arguments": arguments, "descriptors": descriptors})
            try:
                return await self._forks.launch(request.encode(), descriptors)
            except OSError as error:
                _log.error("worker %d could not be forked: %s", number, error)
                return await execute_worker(number, channel)

        self._group = group = WorkerGroup(
            config.workers,
            launch=launch,
            start=begin,
            receive=receive,
            on_restart=self.metrics.process.worker_restarts.inc,
            recent=self._admin.recent,
        )
        stack.push_async_callback(group.stop)
        await group.start()

    async def _apply(self, config: Config) -> None:
        assert self._group is not None
        rules = await asyncio.to_thread(provider_rules, config)

        def commit() -> None:
            self._config = config
            self._provider.reconfigure(rules)
            self._reconfigure(config)

        try:
            pickled = await asyncio.to_thread(pickle.dumps, config)
            await self._group.roll_out(pickled, commit=commit)
        except RolloutError as error:
            raise ReloadError(str(error)) from None

    def _broadcast(self, message: Message) -> None:
        if self._group is not None:
            self._group.broadcast(message)

    async def _render_metrics(
        self, *, openmetrics: bool = False, names: Collection[str] = ()
    ) -> bytes:
        if self._group is None:
            return self.metrics.render(openmetrics=openmetrics, names=names)
        await self._group.collect()
        self.metrics.process.workers.set(len(self._group.ready))
        render = partial(
            self._group.totals.render,
            self.metrics.registry,
            openmetrics=openmetrics,
            names=names,
        )
        return await self.metrics.read_in_thread(render)

    def _upstream_states(self) -> list[list[UpstreamState]]:
        return [] if self._group is None else list(self._group.upstreams.values())

    async def readiness(self) -> dict[str, str]:
        """Return what `/readyz` shows. One worker that serves is enough, once all have started."""
        ready = len(self._group.ready) if self._group else 0
        is_enough = self._is_started and ready
        return {
            "config": "ok",
            **await self._store_readiness(),
            "workers": "ok" if is_enough else f"{ready} of {self._config.workers} ready",
            "draining": "draining" if self._is_draining else "ok",
        }

    async def failure(self) -> str:
        """Wait until there is no hope for a worker; why."""
        assert self._group is not None
        return await asyncio.shield(self._group.given_up)

    async def _drain(self, grace_s: float) -> None:
        assert self._group is not None
        draining = asyncio.create_task(self._group.drain(grace_s=grace_s))
        await asyncio.sleep(0)  # the messages to the workers are sent
        # A socket that only we still hold would keep clients waiting for a response.
        self._sockets.close()
        close_sockets([*self._authz_shares, *self._redirect_shares])
        try:
            await draining
        finally:
            draining.cancel()


def _open_turn() -> int:
    """A file for the workers to lock when they write to standard output."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("gateway-turn")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _descriptors(shares: Sequence[Sockets]) -> list[str]:
    return [",".join(str(opened.fileno()) for opened in share) for share in shares]


def _python() -> list[str]:
    # Modules are found where this process finds them: not in the current directory, unless
    # that was so for this process, too.
    is_safe = sys.flags.safe_path or os.getcwd() not in sys.path
    return [sys.executable, *(["-P"] if is_safe else []), "-m"]
