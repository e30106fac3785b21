"""A gateway in one process: build, start, drain, stop.

The order of the stop is what keeps requests from being lost: readiness goes down first
while everything is still served, and only then is the data plane drained.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from gateway.app.admin_listener import AdminListener, tell_store
from gateway.app.data_listener import DataListener
from gateway.app.housekeeping import Housekeeping
from gateway.app.listening import make_deaf
from gateway.app.provider import build_provider
from gateway.app.wiring import (
    build_router,
    build_upstreams,
    client_limits,
    listen_tls,
    trusted_proxies,
)
from gateway.config import Config, config_hash
from gateway.metrics import Metrics
from gateway.oauth.endpoints import ProviderEndpoints
from gateway.oauth.models import StoreUnavailableError
from gateway.proxy.client_server import ClientServer
from gateway.proxy.listener import DataPlane
from gateway.proxy.outcome import Recorder
from gateway.proxy.upstream import describe_upstreams
from gateway.store import open_store

DRAIN_POLL_S = 0.02
DRAIN_LINGER_S = 1.0
"""How long connections that look idle are kept after the last request: one may be on its way."""
ACCEPT_S = 0.05
BACKLOG = 1024

_log = logging.getLogger(__name__)


class Gateway:
    """Everything in one process. Use as `await start()`, then `await stop()`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.metrics = Metrics()
        self._data = DataListener(config, self.metrics)
        self._admin = AdminListener(config, self.metrics)
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
        config, metrics, stack = self._config, self.metrics, self._stack
        tls = listen_tls(config)

        access_log = open_access_log(config.access_log.path, on_drop=metrics.access_log_dropped.inc)
        stack.callback(access_log.close)
        self._store = store = await open_store(
            config.store,
            observe=lambda operation, seconds: metrics.store_operation_seconds.labels(
                operation
            ).observe(seconds),
            on_outcome=metrics.store_up.set,
        )
        stack.push_async_callback(store.close)
        parts = build_provider(config, store, metrics, stack)
        self.validator = validator = parts.validator

        upstreams = build_upstreams(config, metrics)
        for upstream in upstreams.values():
            stack.callback(upstream.close)
        metrics.upstream_states = lambda: describe_upstreams(upstreams.values())
        data_plane = DataPlane(
            router=build_router(config, upstreams, metrics, parts.proofs),
            validator=validator,
            endpoints=ProviderEndpoints(
                parts.server,
                validator,
                parts.policy,
                parts.limiter,
                metrics,
                records=store,
                proofs=parts.proofs,
                signing_keys=parts.signing_keys,
            ),
            recorder=Recorder(metrics, access_log),
            scheme=b"https" if tls else b"http",
            body_timeout_s=config.listen.timeouts.body,
        )
        self._clients = ClientServer(
            data_plane.handle,
            limits=client_limits(config),
            metrics=metrics,
            trusted_proxies=trusted_proxies(config),
            certificate_header=(config.provider.client_certificate_header or "").lower().encode(),
        )

        self.housekeeping = housekeeping = Housekeeping(
            store=store,
            validator=validator,
            metrics=metrics,
            access_log=access_log,
            client_expiry_warning_s=config.provider.client_expiry_warning,
            expired_client_retention_s=config.provider.expired_client_retention,
            refresh_keys=parts.remote_keys.refresh,
        )
        await housekeeping.start()
        stack.push_async_callback(housekeeping.stop)

        admin = create_admin_app(
            server=parts.server,
            metrics=metrics,
            readiness=self.readiness,
            admin_token=config.admin.token.get_secret_value() if config.admin.token else None,
            on_change=validator.forget,
        )
        runner = web.AppRunner(admin, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, config.admin.host, config.admin.port).start()
        self._admin = runner

        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._clients,
            config.listen.host,
            config.listen.port,
            ssl=tls,
            backlog=BACKLOG,
            reuse_address=True,
        )
        stack.callback(self._listener.close)
        metrics.config_hash.info({"hash": config_hash(config)})
        metrics.config_reloads.labels("success").inc()
        self._is_started = True

    async def _render_metrics(self) -> bytes:
        return self.metrics.render()

    @property
    def data_address(self) -> tuple[str, int]:
        """Where the data plane listens."""
        return self._data.accepting.address

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

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Stop taking requests without losing one.

        For `delay_s` seconds everything is served while `/readyz` says no, so that load
        balancers go elsewhere; then requests in flight have `grace_s` seconds to finish.
        """
        self._is_draining = True
        await asyncio.sleep(delay_s)
        await self._data.drain(grace_s=grace_s)

    async def stop(self) -> None:
        """Close everything. What `drain` did not wait for is cut off."""
        await self._stack.aclose()
