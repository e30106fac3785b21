"""The admin listener of a gateway, and the chores that are done once for all its processes."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiohttp import web

from gateway.admin import Readiness, Reloads, RenderMetrics, create_admin_app
from gateway.app.housekeeping import Housekeeping
from gateway.app.provider import Provider
from gateway.config import Config, config_hash
from gateway.metrics import Metrics
from gateway.oauth.models import Store, StoreUnavailableError


class AdminListener:
    """Metrics, health and the admin API on their socket. `await start()`, then `await stop()`."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._stack = AsyncExitStack()

    async def start(
        self,
        provider: Provider,
        *,
        readiness: Readiness,
        render_metrics: RenderMetrics,
        reloads: Reloads | None = None,
    ) -> None:
        """Start the chores and listen, whether the store answers yet or not.

        Raises `OSError`; close with `stop` all the same.
        """
        config, metrics = self._config, self._metrics
        self.housekeeping = Housekeeping(
            store=provider.store,
            metrics=metrics,
            client_expiry_warning_s=config.provider.client_expiry_warning,
            expired_client_retention_s=config.provider.expired_client_retention,
        )
        self.housekeeping.start()
        self._stack.push_async_callback(self.housekeeping.stop)
        app = create_admin_app(
            server=provider.server,
            render_metrics=render_metrics,
            readiness=readiness,
            admin_token=self._admin_token,
            reloads=reloads,
        )
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, config.admin.host, config.admin.port).start()
        self._runner = runner
        metrics.config_hash.info({"hash": config_hash(config)})

    def reconfigure(self, config: Config) -> None:
        """Go by another configuration from the next request on."""
        self._config = config
        self.housekeeping.reconfigure(
            client_expiry_warning_s=config.provider.client_expiry_warning,
            expired_client_retention_s=config.provider.expired_client_retention,
        )

    def _admin_token(self) -> str | None:
        token = self._config.admin.token
        return token.get_secret_value() if token else None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port, *_ = self._runner.addresses[0]
        return host, port

    async def stop(self) -> None:
        """Close everything."""
        await self._stack.aclose()


async def tell_store(config: Config, store: Store) -> dict[str, str]:
    """The state of the store for `/readyz`; nothing where that does not matter."""
    if config.ready_without_store:
        return {}
    try:
        await store.ping()
    except StoreUnavailableError:
        return {"store": "unavailable"}
    return {"store": "ok"}
