"""One gateway process: build, start, drain, stop.

The order of the stop is what keeps requests from being lost: readiness goes down first
while everything is still served, then answers ask clients to close, then the listening
socket closes, and connections are closed only when nothing is in flight on them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack

from aiohttp import web

from gateway.access_log import open_access_log
from gateway.admin import create_admin_app
from gateway.app.housekeeping import Housekeeping
from gateway.app.invalidation import Invalidation
from gateway.app.listening import make_deaf
from gateway.app.wiring import (
    build_router,
    build_upstreams,
    client_limits,
    listen_tls,
    provider_policy,
    rate_limit,
    trusted_proxies,
)
from gateway.config import Config, config_hash
from gateway.metrics import Metrics
from gateway.oauth.bounded_reads import BoundedReads
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.endpoints import ProviderEndpoints
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import StoreUnavailableError
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.validator import BearerValidator
from gateway.proxy.client_server import ClientServer
from gateway.proxy.listener import DataPlane
from gateway.proxy.outbound import render_identity
from gateway.proxy.outcome import Recorder
from gateway.proxy.upstream import describe_upstreams
from gateway.rate_limit import LocalRateLimits, RateLimits, RateRules
from gateway.store import open_rate_limits, open_store

DRAIN_POLL_S = 0.02
DRAIN_LINGER_S = 1.0
"""How long connections that look idle are kept after the last request: one may be on its way."""
ACCEPT_S = 0.05
BACKLOG = 1024

_log = logging.getLogger(__name__)


class Gateway:
    """Everything of one process. Use as `await start()`, then `await stop()`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.metrics = Metrics()
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
        policy = provider_policy(config)
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
        self.validator = validator = BearerValidator(
            BoundedReads(store, at_once=config.cache.max_store_reads),
            metrics,
            max_entries=config.cache.max_entries,
            ttl_s=config.cache.ttl,
            negative_ttl_s=config.cache.negative_ttl,
            stale_s=config.cache.stale_if_store_down,
            render_identity=render_identity,
        )
        hasher = SecretHasher()
        stack.push_async_callback(hasher.close)
        limit = config.provider.failed_client_limit
        limiter = FailedClientLimiter(failures=limit.failures, window_s=limit.window)
        server = AuthorizationServer(store, policy, hasher, limiter, metrics)

        upstreams = build_upstreams(config, metrics)
        for upstream in upstreams.values():
            stack.callback(upstream.close)
        metrics.upstream_states = lambda: describe_upstreams(upstreams.values())
        data_plane = DataPlane(
            router=build_router(config, upstreams, metrics),
            validator=validator,
            endpoints=ProviderEndpoints(server, validator, policy, limiter, metrics),
            recorder=Recorder(metrics, access_log),
            scheme=b"https" if tls else b"http",
            body_timeout_s=config.listen.timeouts.body,
            rates=self._open_rate_limits(),
            rate_rules=RateRules(rate_limit(config.rate_limit)),
        )
        self._clients = ClientServer(
            data_plane.handle,
            limits=client_limits(config),
            metrics=metrics,
            trusted_proxies=trusted_proxies(config),
        )

        invalidation = Invalidation(store, validator, metrics)
        await invalidation.start()
        stack.push_async_callback(invalidation.stop)
        self.housekeeping = housekeeping = Housekeeping(
            store=store,
            metrics=metrics,
            access_log=access_log,
            client_expiry_warning_s=config.provider.client_expiry_warning,
            expired_client_retention_s=config.provider.expired_client_retention,
        )
        await housekeeping.start()
        stack.push_async_callback(housekeeping.stop)

        admin = create_admin_app(
            server=server,
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

    @property
    def data_address(self) -> tuple[str, int]:
        """Where the data plane listens."""
        host, port, *_ = self._listener.sockets[0].getsockname()
        return host, port

    @property
    def admin_address(self) -> tuple[str, int]:
        """Where the admin listener listens."""
        host, port, *_ = self._admin.addresses[0]
        return host, port

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return len(self._clients.connections)

    async def readiness(self) -> dict[str, str]:
        """What `/readyz` answers: each check is `ok` or says what is wrong."""
        checks = {"config": "ok" if self._is_started else "loading"}
        if not self._config.ready_without_store:
            checks["store"] = await self._check_store()
        return checks | {
            "draining": "draining" if self._is_draining else "ok",
        }

    def _open_rate_limits(self) -> RateLimits:
        shared = open_rate_limits(self._config.store)
        if shared is not None:
            self._stack.push_async_callback(shared.close)
        decisions = self.metrics.rate_limit_decisions

        def count(result: str) -> None:
            decisions[result] += 1

        return RateLimits(LocalRateLimits(), shared, count=count)

    async def _check_store(self) -> str:
        try:
            await self._store.ping()
        except StoreUnavailableError:
            return "unavailable"
        return "ok"

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Stop taking requests without losing one.

        For `delay_s` seconds everything is served while `/readyz` says no, so that load
        balancers go elsewhere; then requests in flight have `grace_s` seconds to finish.
        """
        self._is_draining = True
        await asyncio.sleep(delay_s)
        self._clients.is_draining = True
        await self._close_listener()
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        quiet_since = loop.time()
        while self._clients.connections and loop.time() < end:
            if self.metrics.inflight_requests:
                quiet_since = loop.time()
            elif loop.time() - quiet_since > DRAIN_LINGER_S:
                break
            await asyncio.sleep(DRAIN_POLL_S)
        if self.metrics.inflight_requests:
            _log.warning(
                "%d requests did not finish within the grace period",
                self.metrics.inflight_requests,
            )

    async def _close_listener(self) -> None:
        for listening in self._listener.sockets:
            with socket.socket(fileno=socket.dup(listening.fileno())) as duplicate:
                make_deaf(duplicate)
        # Time for the event loop to accept what is in the queue.
        await asyncio.sleep(ACCEPT_S)
        self._listener.close()

    async def stop(self) -> None:
        """Close everything. What `drain` did not wait for is cut off."""
        self._listener.close()
        await self._clients.shutdown(timeout_s=0.5)
        await self._stack.aclose()
