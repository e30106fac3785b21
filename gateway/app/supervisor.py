"""A gateway in several processes: this one keeps the workers, and what there is one of.

It opens the listening sockets and the admin listener, does the chores that are done once
for a gateway, and makes one page of everybody's metrics. Requests are served by the
workers (`gateway.app.worker`).
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack

from gateway import __version__
from gateway.app.admin_listener import AdminListener, tell_store
from gateway.app.build.listeners import group_limiter
from gateway.app.data_sockets import DataSockets
from gateway.app.housekeeping import Housekeeping
from gateway.app.logs import OwnLogLevel
from gateway.app.provider import open_provider
from gateway.app.reloading.reloader import Reloader, ReloadError
from gateway.config import Config, LoadedConfig
from gateway.downstream.sockets import Sockets, close_sockets, open_sockets
from gateway.downstream.systemd import Activated
from gateway.metrics import Metrics
from gateway.upstream.status import UpstreamState
from gateway.workers.config_rollout import RolloutError
from gateway.workers.group import WorkerGroup
from gateway.workers.messages import ForAll, LogLevel, Message, Revoked, Start


class Supervisor:
    """Use as `await start()`, then `await stop()`, like `Gateway`."""

    def __init__(
        self,
        config: Config,
        *,
        loaded: LoadedConfig | None = None,
        activated: Activated | None = None,
    ) -> None:
        """`loaded` is where the configuration came from, if it can be loaded anew from there.
        `activated` are sockets to use in place of our own."""
        self._config = config
        self._activated = activated or Activated()
        self.metrics = Metrics()
        self.log_level = OwnLogLevel(lambda level: self._broadcast(LogLevel(level)))
        self._admin = AdminListener(config, self.metrics)
        self.reloader: Reloader | None = None
        if loaded is not None:
            self.reloader = Reloader(loaded, apply=self._apply, metrics=self.metrics)
        self._stack = AsyncExitStack()
        self._group: WorkerGroup | None = None
        self._is_started = False
        self._is_draining = False

    async def start(self) -> None:
        """Open the store and the admin listener, then start the workers.

        Raises `StoreError`, `OSError` and `WorkerStartError`; what was opened before is
        closed again.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        config, stack = self._config, self._stack
        if not hasattr(socket, "SO_REUSEPORT"):
            raise OSError("workers above 1 need SO_REUSEPORT, which this system lacks")
        self._sockets = sockets = DataSockets(
            config.listen, self._activated.data, workers=config.workers
        )
        stack.callback(sockets.close)
        self._authz_shares: list[Sockets] = []
        if authz := config.authz:
            self._authz_shares = open_sockets(authz.host, authz.port, workers=config.workers)
            stack.callback(close_sockets, self._authz_shares)
            self.authz_address: tuple[str, int] = self._authz_shares[0][0].getsockname()[:2]
        self.data_address = sockets.address
        limiter = group_limiter(config, self._broadcast)
        self._provider = provider = await open_provider(
            config,
            self.metrics,
            limiter,
            stack,
            on_change=lambda change: self._broadcast(Revoked.of(change)),
        )
        stack.push_async_callback(self._admin.stop)
        await self._admin.start(
            provider,
            readiness=self.readiness,
            render_metrics=self._render_metrics,
            log_level=self.log_level,
            upstream_states=self._upstream_states,
            reloads=self.reloader,
            activated=self._activated.admin,
        )
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

        def hear(message: ForAll) -> None:
            if not isinstance(message, Revoked):
                limiter.hear(message)

        def command(number: int, channel: int) -> Sequence[str]:
            authz = ":".join(_descriptors(self._authz_shares))
            return [*_python(), "gateway.app.worker", f"--number={number}",
                    f"--channel={channel}", f"--turn={turn}", f"--authz={authz}",
                    *(["--activated"] if sockets.is_activated else []),
                    *_descriptors(sockets.shares)]  # fmt: skip

        self._group = group = WorkerGroup(
            config.workers,
            command=command,
            inherited=[
                turn,
                *(
                    opened.fileno()
                    for share in (*sockets.shares, *self._authz_shares)
                    for opened in share
                ),
            ],
            start=begin,
            hear=hear,
            on_restart=self.metrics.process.worker_restarts.inc,
            recent=self._admin.recent,
        )
        stack.push_async_callback(group.stop)
        await group.start()
        self._is_started = True
        if self.reloader is not None:
            self.reloader.start()
            stack.push_async_callback(self.reloader.stop)

    @property
    def config(self) -> Config:
        """The configuration that serves."""
        return self._config

    async def _apply(self, config: Config) -> None:
        """Have all processes go by another configuration, or none. Raises `ReloadError`."""
        assert self._group is not None

        def commit() -> None:
            self._config = config
            self._provider.reconfigure(config)
            self._admin.reconfigure(config)

        try:
            pickled = await asyncio.to_thread(pickle.dumps, config)
            await self._group.roll_out(pickled, commit=commit)
        except RolloutError as error:
            raise ReloadError(str(error)) from None

    def _broadcast(self, message: Message) -> None:
        if self._group is not None:
            self._group.broadcast(message)

    async def _render_metrics(self, *, openmetrics: bool = False) -> bytes:
        if self._group is None:
            return self.metrics.render(openmetrics=openmetrics)
        await self._group.collect()
        self.metrics.process.workers.set(len(self._group.ready))
        return self._group.totals.render(self.metrics.registry, openmetrics=openmetrics)

    def _upstream_states(self) -> list[list[UpstreamState]]:
        return [] if self._group is None else list(self._group.upstreams.values())

    @property
    def admin_address(self) -> tuple[str, int]:
        """Where the admin listener listens."""
        return self._admin.address

    @property
    def housekeeping(self) -> Housekeeping:
        """The chores that are done once for a gateway."""
        return self._admin.housekeeping

    async def readiness(self) -> dict[str, str]:
        """What `/readyz` answers. One worker that serves is enough, once all have started."""
        ready = len(self._group.ready) if self._group else 0
        is_enough = self._is_started and ready
        return {
            "config": "ok",
            **await tell_store(self._config, self._provider.store),
            "workers": "ok" if is_enough else f"{ready} of {self._config.workers} ready",
            "draining": "draining" if self._is_draining else "ok",
        }

    async def failure(self) -> str:
        """Wait until there is no hope for a worker; why."""
        assert self._group is not None
        return await asyncio.shield(self._group.given_up)

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Stop taking requests without losing one; see `Gateway.drain`.

        In the first part a worker that dies is still replaced.
        """
        assert self._group is not None
        self._is_draining = True
        if self.reloader is not None:
            await self.reloader.stop()
        await asyncio.sleep(delay_s)
        self._sockets.withdraw()
        draining = asyncio.create_task(self._group.drain(grace_s=grace_s))
        await asyncio.sleep(0)  # the workers are told
        # A socket that only we still hold would keep clients waiting for an answer.
        self._sockets.close()
        close_sockets(self._authz_shares)
        try:
            await draining
        finally:
            draining.cancel()

    async def stop(self) -> None:
        """End everything. What `drain` did not wait for is cut off."""
        await self._stack.aclose()


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
