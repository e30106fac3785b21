"""The life cycle of a gateway in one process or several: start, reload, drain, stop.

The order of the stop is what keeps requests from being lost: readiness goes down first
while everything is still served, and only then is the data plane drained.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import AsyncExitStack

from gateway.app.admin_listener import AdminListener, describe_store
from gateway.app.certificates import IssuerTask
from gateway.app.logs import OwnLogLevel
from gateway.app.periodic import PerGatewayTasks
from gateway.app.provider import open_provider
from gateway.app.reloading.reloader import Reloader
from gateway.app.start_errors import StartError, blaming, blaming_address
from gateway.config import Config, LoadedConfig
from gateway.downstream.sockets import DataSockets, Sockets, address_of, close_sockets, open_sockets
from gateway.downstream.systemd import Activated
from gateway.metrics import Metrics
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Change
from gateway.upstream.status import UpstreamState

NOTHING_TO_LISTEN_ON = "is off, and neither `listen.unix` nor systemd gives another socket"


class Service(ABC):
    """A gateway. Use as `await start()`, then `await stop()`."""

    def __init__(
        self,
        config: Config,
        *,
        loaded: LoadedConfig | None = None,
        activated: Activated | None = None,
    ) -> None:
        """`loaded` is where the configuration came from, if it can be reloaded from there.
        `activated` are sockets to use in place of our own."""
        self._config = config
        self._activated = activated or Activated()
        self.metrics = Metrics()
        self.log_level = OwnLogLevel(self._announce_level)
        self._admin = AdminListener(config, self.metrics)
        self.reloader: Reloader | None = None
        if loaded is not None:
            self.reloader = Reloader(loaded, apply=self._apply, metrics=self.metrics)
        self._stack = AsyncExitStack()
        self._authz_shares: list[Sockets] = []
        self._redirect_shares: list[Sockets] = []
        self._issuer = IssuerTask(self.metrics)
        self._is_started = False
        self._is_draining = False

    async def start(self) -> None:
        """Open sockets, store and admin listener, then serve.

        Raises `StoreError`, `StartError` (an address in use), `OSError` (an unreadable
        certificate) and `WorkerStartError`; what was opened before is closed again.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        config, stack = self._config, self._stack
        listen = config.listen
        with blaming_address("listen"):
            self._sockets = DataSockets(
                listen.host,
                listen.port,
                activated=self._activated.data,
                workers=config.workers,
            )
        stack.callback(self._sockets.close)
        if listen.unix is not None and not self._activated.data:
            with blaming("listen", "unix", "path"):
                self._sockets.add_unix(listen.unix.path, int(listen.unix.mode, 8))
        if not self._sockets.shares[0]:
            raise StartError(("listen", "port"), NOTHING_TO_LISTEN_ON)
        self.data_address = self._sockets.address
        if authz := config.authz:
            with blaming_address("authz"):
                self._authz_shares = open_sockets(authz.host, authz.port, workers=config.workers)
            stack.callback(close_sockets, self._authz_shares)
            self.authz_address = address_of(self._authz_shares[0][0])
        if redirect := listen.http_redirect:
            with blaming_address("listen.http_redirect"):
                self._redirect_shares = open_sockets(
                    redirect.host, redirect.port, workers=config.workers
                )
            stack.callback(close_sockets, self._redirect_shares)
            self.redirect_address = address_of(self._redirect_shares[0][0])
        self._provider = await open_provider(
            config, self.metrics, self._make_limiter(), stack, on_change=self._forget
        )
        stack.push_async_callback(self._admin.stop)
        await self._admin.start(
            self._provider,
            readiness=self.readiness,
            render_metrics=self._render_metrics,
            log_level=self.log_level,
            upstream_states=self._upstream_states,
            reloads=self.reloader,
            activated=self._activated.admin,
        )
        await self._serve()
        stack.push_async_callback(self._issuer.stop)
        await self._issuer.start(config, self._provider)
        self._is_started = True
        if self.reloader is not None:
            self.reloader.start()
            stack.push_async_callback(self.reloader.stop)

    @abstractmethod
    def _announce_level(self, level: str) -> None:
        """Set the log level of the other processes, where there are any."""

    @abstractmethod
    def _make_limiter(self) -> FailedClientLimiter:
        """Return the limiter of failed client authentications."""

    @abstractmethod
    def _forget(self, change: Change) -> None:
        """Believe no more what `change` made invalid, wherever requests are served."""

    @abstractmethod
    def _upstream_states(self) -> list[list[UpstreamState]]:
        """How the upstreams of each process are."""

    @abstractmethod
    async def _render_metrics(
        self, *, openmetrics: bool = False, names: Collection[str] = ()
    ) -> bytes:
        """The page of metrics of all processes."""

    @abstractmethod
    async def _serve(self) -> None:
        """Serve requests from the sockets. Raises `OSError` and `WorkerStartError`."""

    @abstractmethod
    async def _apply(self, config: Config) -> None:
        """Put another configuration to use. Raises `OSError` or `ReloadError`, and changes
        nothing then."""

    @abstractmethod
    async def readiness(self) -> dict[str, str]:
        """Return what `/readyz` shows: each check is `ok` or says what is wrong."""

    @abstractmethod
    async def failure(self) -> str:
        """Wait until it can go on no more, and why."""

    @abstractmethod
    async def _drain(self, grace_s: float) -> None:
        """Take no more connections; requests in flight have `grace_s` seconds to finish."""

    @property
    def config(self) -> Config:
        """The configuration that serves."""
        return self._config

    @property
    def admin_address(self) -> tuple[str, int]:
        """Address of the admin listener."""
        return self._admin.address

    @property
    def gateway_tasks(self) -> PerGatewayTasks:
        """The periodic tasks that run once for a gateway."""
        return self._admin.gateway_tasks

    def _reconfigure(self, config: Config) -> None:
        """Have what there is one of go by another configuration."""
        self._admin.reconfigure(config)
        self._issuer.reconfigure(config)

    async def _store_readiness(self) -> dict[str, str]:
        return {
            **await describe_store(self._config, self._provider.store),
            **self._admin.declared_clients.readiness(),
        }

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Stop taking requests without losing one.

        For `delay_s` seconds everything is served while `/readyz` says no, so that load
        balancers go elsewhere; then requests in flight have `grace_s` seconds to finish.
        """
        self._is_draining = True
        if self.reloader is not None:
            await self.reloader.stop()
        await self._issuer.stop()
        await asyncio.sleep(delay_s)
        self._sockets.withdraw()
        await self._drain(grace_s)

    async def stop(self) -> None:
        """Close everything. What `drain` did not wait for is cut off."""
        await self._stack.aclose()
