"""The admin listener of a gateway, and the periodic tasks that run once for all its processes."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from gateway.addresses import is_loopback_address
from gateway.admin.application import create_admin_app
from gateway.admin.authentication import source_behind
from gateway.admin.probes import RenderMetrics
from gateway.admin.status import GatewayStatus, Readiness, Reloads, Row, UpstreamStates
from gateway.app.build.accounts import accounts_in
from gateway.app.build.listeners import trusted_proxies
from gateway.app.build.routes import list_routes
from gateway.app.declared_clients import DeclaredClients
from gateway.app.explain import explain_aside
from gateway.app.logs import OwnLogLevel
from gateway.app.periodic import PerGatewayTasks, PeriodicTasks
from gateway.app.provider import Provider
from gateway.app.start_errors import blaming_address
from gateway.config import Config, config_hash
from gateway.downstream.sockets import open_sockets
from gateway.history.ring import OWN, Recent
from gateway.history.sampling import Sampler
from gateway.metrics import Metrics
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.declared_clients import ClientReconciler
from gateway.oauth.models import Store, StoreUnavailableError
from gateway.store_url import NONE, parse_store_url

SAMPLE_S = 1.0
"""How often this process notes what it counted."""


class AdminListener:
    """Metrics, health and the admin API on their socket. `await start()`, then `await stop()`."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._stack = AsyncExitStack()
        self._sampler = Sampler(metrics)
        self._periodic = PeriodicTasks()
        self._routes: tuple[Config, Sequence[Row]] | None = None
        self.recent = Recent()
        """What all processes of the gateway did in the last minutes."""

    async def start(
        self,
        provider: Provider,
        *,
        readiness: Readiness,
        render_metrics: RenderMetrics,
        log_level: OwnLogLevel,
        upstream_states: UpstreamStates,
        reloads: Reloads | None = None,
        activated: Sequence[socket.socket] = (),
    ) -> None:
        """Start the tasks and listen, whether the store responds yet or not: on the sockets
        `activated`, or where the configuration says.

        Raises `OSError`; close with `stop` all the same.
        """
        config, metrics = self._config, self._metrics
        self.gateway_tasks = PerGatewayTasks(
            store=provider.store,
            metrics=metrics,
            client_expiry_warning_s=config.provider.client_expiry_warning,
            expired_client_retention_s=config.provider.expired_client_retention,
        )
        self.gateway_tasks.start()
        self._stack.push_async_callback(self.gateway_tasks.stop)
        self._periodic.repeat(self._sample, SAMPLE_S)
        self._stack.push_async_callback(self._periodic.stop)
        # Its own thread: who tries passwords here must not hold up clients who want tokens.
        hasher = SecretHasher()
        self._stack.push_async_callback(hasher.close)
        self.accounts = accounts_in(config, provider.store.records, hasher)
        self.declared_clients = DeclaredClients(
            ClientReconciler(provider.server, hasher), metrics, note=self.accounts.audit.note
        )
        self.declared_clients.declare(config)
        self.declared_clients.start()
        self._stack.push_async_callback(self.declared_clients.stop)
        app = create_admin_app(
            server=provider.server,
            accounts=self.accounts,
            gateway_status=GatewayStatus(
                recent=self.recent,
                readiness=readiness,
                routes=self._list_routes,
                upstream_states=upstream_states,
                explain=self._explain,
                reloads=reloads,
                store_kind=parse_store_url(config.store).kind,
                workers=config.workers,
            ),
            render_metrics=render_metrics,
            source=self._source,
            log_level=log_level,
            admin_token=self._admin_token,
            hosts=self._hosts,
            has_store=config.store != NONE,
        )
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        if not activated:
            with blaming_address("admin"):
                (activated,) = open_sockets(config.admin.host, config.admin.port)
        for opened in activated:
            await web.SockSite(runner, opened).start()
        self._runner = runner
        metrics.process.config_hash.info({"hash": config_hash(config)})

    def reconfigure(self, config: Config) -> None:
        """Go by another configuration from the next request on."""
        self._config = config
        self.gateway_tasks.reconfigure(
            client_expiry_warning_s=config.provider.client_expiry_warning,
            expired_client_retention_s=config.provider.expired_client_retention,
        )
        self.declared_clients.declare(config)

    def _source(self, request: web.Request) -> str:
        return source_behind(trusted_proxies(self._config))(request)

    async def _explain(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        source: str,
        claims: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        config = self._config
        return await explain_aside(config, method, url, headers, source=source, claims=claims)

    def _list_routes(self) -> Sequence[Row]:
        if self._routes is None or self._routes[0] is not self._config:
            self._routes = self._config, list_routes(self._config)
        return self._routes[1]

    def _admin_token(self) -> str | None:
        token = self._config.admin.token
        return token.get_secret_value() if token else None

    def _hosts(self) -> Collection[str]:
        admin = self._config.admin
        if not admin.hosts and not all(is_loopback_address(at[0]) for at in self._runner.addresses):
            return ()
        return {name.lower().rstrip(".") for name in (*admin.hosts, admin.host)}

    async def _sample(self) -> None:
        self.recent.receive(OWN, self._sampler.take())

    @property
    def address(self) -> tuple[str, int]:
        """Address that it listens on."""
        host, port, *_ = self._runner.addresses[0]
        return host, port

    async def stop(self) -> None:
        """Close everything."""
        await self._stack.aclose()


async def describe_store(config: Config, store: Store) -> dict[str, str]:
    """The state of the store for `/readyz`; nothing where that does not matter."""
    if config.ready_without_store or config.store == NONE:
        return {}
    try:
        await store.ping()
    except StoreUnavailableError:
        return {"store": "unavailable"}
    return {"store": "ok"}
