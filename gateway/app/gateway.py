"""A gateway in one process: build, start, drain, stop.

The order of the stop is what keeps requests from being lost: readiness goes down first
while everything is still served, and only then is the data plane drained.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from gateway.app.admin_listener import AdminListener, tell_store
from gateway.app.build.listeners import failed_client_limiter
from gateway.app.data_listener import DataListener
from gateway.app.data_sockets import DataSockets
from gateway.app.housekeeping import Housekeeping
from gateway.app.logs import OwnLogLevel
from gateway.app.provider import open_provider
from gateway.app.reloading.reloader import Reloader
from gateway.app.upkeep import Upkeep
from gateway.config import Config, LoadedConfig
from gateway.downstream.sockets import open_sockets
from gateway.downstream.systemd import Activated
from gateway.metrics import Metrics
from gateway.oauth.validator import BearerValidator


class Gateway:
    """Everything in one process. Use as `await start()`, then `await stop()`."""

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
        self.log_level = OwnLogLevel()
        self._data = DataListener(config, self.metrics)
        self._admin = AdminListener(config, self.metrics)
        self.reloader: Reloader | None = None
        if loaded is not None:
            self.reloader = Reloader(loaded, apply=self._apply, metrics=self.metrics)
        self._stack = AsyncExitStack()
        self._is_started = False
        self._is_draining = False

    async def start(self) -> None:
        """Open the store, then the listeners.

        Raises `StoreError`, `OSError` (an address in use, an unreadable certificate); what
        was opened before is closed again.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        config, stack = self._config, self._stack
        self._sockets = sockets = DataSockets(config.listen, self._activated.data)
        stack.callback(sockets.close)
        authz_shares = {}
        if authz := config.authz:
            (authz_shares[1],) = open_sockets(authz.host, authz.port)
            for opened in authz_shares[1]:
                stack.callback(opened.close)
        limiter = failed_client_limiter(config)
        self._provider = provider = await open_provider(
            config, self.metrics, limiter, stack, on_change=self._data.forget
        )
        stack.push_async_callback(self._admin.stop)
        await self._admin.start(
            provider,
            readiness=self.readiness,
            render_metrics=self._render_metrics,
            log_level=self.log_level,
            upstream_states=lambda: [self._data.upstream_states()],
            reloads=self.reloader,
            activated=self._activated.admin,
        )
        stack.push_async_callback(self._data.stop)
        await self._data.start(
            provider, {1: sockets.shares[0]}, 1, authz_shares, is_activated=sockets.is_activated
        )
        stack.callback(sockets.withdraw)
        self.metrics.process.workers.set(1)
        self._is_started = True
        if self.reloader is not None:
            self.reloader.start()
            stack.push_async_callback(self.reloader.stop)

    async def _apply(self, config: Config) -> None:
        """Put another configuration to use. Raises `OSError` and changes nothing then."""
        generation = await self._data.prepare(config)
        # From here on nothing waits and nothing fails.
        self._config = config
        self._data.commit(generation)
        self._admin.reconfigure(config)

    async def _render_metrics(self, *, openmetrics: bool = False) -> bytes:
        return self.metrics.render(openmetrics=openmetrics)

    @property
    def data_address(self) -> tuple[str, int]:
        """Where the data plane listens."""
        return self._data.accepting.address

    @property
    def authz_address(self) -> tuple[str, int]:
        """Where decision mode listens, if it is on."""
        return self._data.authz_accepting.address

    @property
    def admin_address(self) -> tuple[str, int]:
        """Where the admin listener listens."""
        return self._admin.address

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return self._data.connections

    @property
    def validator(self) -> BearerValidator:
        """The token cache."""
        assert self._data.validator is not None
        return self._data.validator

    @property
    def housekeeping(self) -> Housekeeping:
        """The chores that are done once for a gateway."""
        return self._admin.housekeeping

    @property
    def upkeep(self) -> Upkeep:
        """The chores of each process."""
        return self._data.upkeep

    async def readiness(self) -> dict[str, str]:
        """What `/readyz` answers: each check is `ok` or says what is wrong."""
        return {
            "config": "ok" if self._is_started else "loading",
            **await tell_store(self._config, self._provider.store),
            "draining": "draining" if self._is_draining else "ok",
        }

    async def failure(self) -> str:
        """Wait until it can go on no more, and why: never."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    @property
    def config(self) -> Config:
        """The configuration that serves."""
        return self._config

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Stop taking requests without losing one.

        For `delay_s` seconds everything is served while `/readyz` says no, so that load
        balancers go elsewhere; then requests in flight have `grace_s` seconds to finish.
        """
        self._is_draining = True
        if self.reloader is not None:
            await self.reloader.stop()
        await asyncio.sleep(delay_s)
        self._sockets.withdraw()
        await self._data.drain(grace_s=grace_s)

    async def stop(self) -> None:
        """Close everything. What `drain` did not wait for is cut off."""
        await self._stack.aclose()
