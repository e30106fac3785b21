"""A gateway in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial

from gateway.app.build.provider import failed_client_limiter
from gateway.app.data_listener import DataListener
from gateway.app.periodic import PerProcessTasks
from gateway.app.service import Service
from gateway.config import Config
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Change
from gateway.oauth.token_cache import TokenCache
from gateway.upstream.status import UpstreamState


class Gateway(Service):
    """Everything in one process."""

    async def _start(self) -> None:
        self._data = DataListener(self._config, self.metrics)
        await super()._start()

    def _make_limiter(self) -> FailedClientLimiter:
        return failed_client_limiter(self._config)

    def _announce_level(self, level: str) -> None:
        pass  # there are no others

    def _forget(self, change: Change) -> None:
        self._data.forget(change)

    async def _serve(self) -> None:
        sockets, stack = self._sockets, self._stack
        stack.push_async_callback(self._data.stop)
        await self._data.start(
            self._provider,
            {1: sockets.shares[0]},
            1,
            dict(enumerate(self._authz_shares, start=1)),
            redirect_shares=dict(enumerate(self._redirect_shares, start=1)),
            is_activated=sockets.is_activated,
        )
        stack.callback(sockets.withdraw)
        self.metrics.process.workers.set(1)

    async def _apply(self, config: Config) -> None:
        generation = await self._data.prepare(config)
        # From here on nothing waits and nothing fails.
        self._config = config
        self._data.commit(generation)
        self._reconfigure(config)

    async def _render_metrics(
        self, *, openmetrics: bool = False, names: Collection[str] = ()
    ) -> bytes:
        render = partial(self.metrics.render, openmetrics=openmetrics, names=names)
        return await self.metrics.read_in_thread(render)

    def _upstream_states(self) -> list[list[UpstreamState]]:
        return [self._data.upstream_states()]

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return self._data.connections

    @property
    def validator(self) -> TokenCache:
        """The token cache."""
        assert self._data.validator is not None
        return self._data.validator

    @property
    def process_tasks(self) -> PerProcessTasks:
        """The periodic tasks of each process."""
        return self._data.process_tasks

    async def readiness(self) -> dict[str, str]:
        """Return what `/readyz` shows: each check is `ok` or says what is wrong."""
        return {
            "config": "ok" if self._is_started else "loading",
            **await self._store_readiness(),
            "draining": "draining" if self._is_draining else "ok",
        }

    async def failure(self) -> str:
        """Wait until it can go on no more: for ever."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    async def _drain(self, grace_s: float) -> None:
        await self._data.drain(grace_s=grace_s)
