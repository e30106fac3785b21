"""The data plane of one process: built, listening, drained, closed.

The order of the drain is what keeps requests from being lost: responses ask clients to
close, then the listening socket closes, and connections are closed only when nothing is
in flight on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial

from gateway.access_log import open_access_log
from gateway.app.build.endpoints import build_rate_limits
from gateway.app.build.listeners import client_limits, proxy_rules
from gateway.app.certificates import ServedCertificates, open_certificates
from gateway.app.generation import (
    Generation,
    SharedState,
    build_generation,
    requests_first,
)
from gateway.app.invalidation import Invalidation
from gateway.app.periodic import PerProcessTasks, probe_writes
from gateway.app.provider import Provider
from gateway.app.start_errors import blaming
from gateway.app.tracing import OtlpTracing
from gateway.config import Config
from gateway.downstream.acceptor import Acceptor
from gateway.downstream.connections import ConnectionManager
from gateway.downstream.handshake import Handshake, ProxyRules
from gateway.downstream.sockets import Sockets
from gateway.metrics import Metrics
from gateway.oauth.models import Change
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.request_log import RequestLog
from gateway.rate_limit import SharedRateLimits
from gateway.upstream.status import UpstreamState, describe_upstream, upstream_metrics
from gateway.upstream.upstream import Upstream

DRAIN_POLL_S = 0.02
DRAIN_LINGER_S = 1.0
"""How long connections that look idle are kept after the last request: one may be on its way."""

_log = logging.getLogger(__name__)


class DataListener:
    """The data plane on its listening sockets. Use as `await start()`, then `await stop()`."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        *,
        log_turn: AbstractContextManager[object] | None = None,
        shared_rates: SharedRateLimits | None = None,
    ) -> None:
        """`log_turn` and `shared_rates` are what several processes need to work as one."""
        self._config = config
        self._metrics = metrics
        self._log_turn = log_turn or contextlib.nullcontext()
        self._shared_rates = shared_rates
        self._stack = AsyncExitStack()
        self.validator: TokenCache | None = None
        self._certificates: ServedCertificates | None = None
        self._retired: dict[Upstream, asyncio.Task[None]] = {}
        """What no configuration names any more, and a request may still be in flight to."""
        self._servers: list[tuple[ConnectionManager, Acceptor]] = []

    @property
    def config(self) -> Config:
        """The configuration that serves."""
        return self._config

    def forget(self, change: Change) -> None:
        """Believe no more what `change` made invalid."""
        if self.validator is not None:
            self.validator.forget(change)

    async def start(
        self,
        provider: Provider,
        shares: Mapping[int, Sockets],
        number: int,
        authz_shares: Mapping[int, Sockets],
        *,
        redirect_shares: Mapping[int, Sockets] | None = None,
        is_activated: bool = False,
    ) -> None:
        """Build everything, then accept from the share of worker `number`.

        `authz_shares` are the sockets of external authorization, empty where it is off;
        `redirect_shares` those of `listen.http_redirect`.
        `is_activated` says that those of the data plane are open in systemd, too. The sockets of
        all shares belong to this object from here on. Raises `StoreError`,
        `OSError` and `ssl.SSLError`; close with `stop` all the same.
        """
        config, metrics, stack = self._config, self._metrics, self._stack
        log = config.access_log
        with blaming("access_log", "path"):
            access_log = open_access_log(
                log.path,
                style=log.format,
                sample=log.sample,
                on_drop=metrics.data_plane.access_log_dropped.inc,
                turn=self._log_turn,
            )
        stack.callback(access_log.close)
        tracing = None
        if config.tracing is not None:
            tracing = OtlpTracing(config.tracing, scheme="https" if config.listen.tls else "http")
            stack.push_async_callback(tracing.close)
        self.validator = validator = provider.validator
        rates = build_rate_limits(config, metrics, stack, self._shared_rates)
        request_log = RequestLog(metrics, access_log, tracing=tracing)
        self._certificates = await open_certificates(
            config, provider, metrics, stack, on_change=self._show_certificates
        )
        self._shared = SharedState(
            metrics, provider, access_log, request_log, rates, tracing, self._certificates
        )
        generation = await asyncio.to_thread(build_generation, config, self._shared)
        self._generation = generation
        stack.push_async_callback(self._close_upstreams)
        for upstream in generation.upstreams.values():
            upstream.start()
        metrics.data_plane.upstream_states = lambda: upstream_metrics(
            self._generation.upstreams.values()
        )
        self._clients = ConnectionManager(
            generation.pipeline.handle, limits=client_limits(config), metrics=metrics
        )
        self._decision_clients: ConnectionManager | None = None
        if generation.decisions is not None:
            self._decision_clients = ConnectionManager(
                generation.decisions.handle, limits=client_limits(config), metrics=metrics
            )
        self._redirect_clients: ConnectionManager | None = None
        if generation.redirect is not None:
            self._redirect_clients = ConnectionManager(
                generation.redirect.handle, limits=client_limits(config), metrics=metrics
            )
        self._configure(generation)
        self.invalidation = Invalidation(provider.store, validator, metrics)
        await self.invalidation.start()
        stack.push_async_callback(self.invalidation.stop)
        self.process_tasks = PerProcessTasks(
            metrics=metrics,
            access_log=access_log,
            refresh_keys=provider.remote_keys.refresh,
            flush_usage=provider.flush_usage,
            probe_store=self._probe_store,
        )
        self.process_tasks.start()
        stack.push_async_callback(self.process_tasks.stop)
        self.acceptor = self._accept(
            self._clients,
            shares,
            generation.tls,
            proxies=proxy_rules(config),
            keeps_queue=is_activated,
        )
        if self._decision_clients is not None:
            self._accept(self._decision_clients, authz_shares)
        if self._redirect_clients is not None:
            self._accept(self._redirect_clients, redirect_shares or {})
        await self.adopt(number)
        metrics.process.config_hash.info({"hash": generation.hash})
        self._show_certificates()

    async def prepare(self, config: Config) -> Generation:
        """Build what serves another configuration, in a thread; nothing serves it yet.

        Raises `OSError` where something that it names can't be used: it is as if it had never
        been asked for then.
        """
        with requests_first():
            return await asyncio.to_thread(build_generation, config, self._shared, self._generation)

    def commit(self, generation: Generation) -> None:
        """Serve by it from the next request on. Requests in flight finish as they began."""
        before, self._generation = self._generation, generation
        self._config = config = generation.config
        self._shared.provider.reconfigure(generation.rules)
        self._configure(generation)
        # In a turn of the loop of its own: very many objects go with it.
        close = partial(before.close, keeps_decisions=generation.decisions is None)
        asyncio.get_running_loop().call_soon(close)
        # Handshakes that have begun go on as they began.
        self.acceptor.handshake = replace(
            self.acceptor.handshake,
            tls=generation.tls,
            proxies=proxy_rules(config),
            timeout_s=config.listen.timeouts.head,
        )
        known, kept = set(before.upstreams.values()), set(generation.upstreams.values())
        for name, upstream in generation.upstreams.items():
            if upstream not in known:
                if predecessor := before.upstreams.get(name):
                    upstream.inherit(predecessor)
                upstream.start()
        self._retire(known - kept)
        metrics = self._metrics
        metrics.data_plane.name_only({route.name for route in config.routes}, set(config.upstreams))
        metrics.process.config_hash.info({"hash": generation.hash})
        self._show_certificates()

    def _configure(self, generation: Generation) -> None:
        generation.configure(self._clients, self._decision_clients, self._redirect_clients)
        if self._certificates is not None and generation.names is not None:
            self._certificates.adopt(generation.config, generation.names)

    def _show_certificates(self) -> None:
        by_acme = {} if self._certificates is None else self._certificates.expiries()
        self._metrics.process.certificates({**self._generation.expiries, **by_acme})

    def discard(self, generation: Generation) -> None:
        """Have nothing to do with it: another process could not be had for it."""
        kept = set(self._generation.upstreams.values())
        for upstream in generation.upstreams.values():
            if upstream not in kept:
                upstream.close()

    def _retire(self, upstreams: Collection[Upstream]) -> None:
        """Let upstreams end with the requests that they have."""
        self._retired = {one: end for one, end in self._retired.items() if one.is_busy}
        for upstream in upstreams:
            self._retired[upstream] = asyncio.create_task(self._stop_upstream(upstream))

    async def _stop_upstream(self, upstream: Upstream) -> None:
        try:
            await upstream.stop()
        except Exception:  # of one, which must not keep the others open
            _log.exception("stopping upstream %s failed", upstream.name)

    async def _close_upstreams(self) -> None:
        await asyncio.gather(*self._retired.values())
        for upstream in self._generation.upstreams.values():
            await self._stop_upstream(upstream)
        for upstream in (*self._generation.upstreams.values(), *self._retired):
            upstream.close()

    def _accept(
        self,
        server: ConnectionManager,
        shares: Mapping[int, Sockets],
        tls: ssl.SSLContext | None = None,
        *,
        proxies: ProxyRules | None = None,
        keeps_queue: bool = False,
    ) -> Acceptor:
        handshake = Handshake(
            server.make_connection,
            tls,
            proxies,
            server.connection_of,
            timeout_s=self._config.listen.timeouts.head,
            on_failure=self._metrics.data_plane.tls_failures.inc,
            on_refusal=self._count_refusal,
            challenges=self._certificates.tls_challenges if tls and self._certificates else None,
        )
        local = Handshake(server.local_connection)
        acceptor = Acceptor(handshake, shares, local=local, keeps_queue=keeps_queue)
        self._servers.append((server, acceptor))
        self._stack.push_async_callback(server.shutdown, timeout_s=0.5)
        self._stack.push_async_callback(acceptor.stop)
        return acceptor

    def _count_refusal(self) -> None:
        self._metrics.data_plane.connections_refused["proxy_protocol"] += 1

    async def adopt(self, number: int) -> None:
        """Accept from the share of worker `number`, too. Raises `OSError`."""
        for _, acceptor in self._servers:
            await acceptor.begin(number)

    def release(self, number: int) -> None:
        """Accept no more from the share of worker `number`."""
        for _, acceptor in self._servers:
            acceptor.end(number)

    async def _probe_store(self) -> None:
        """See whether a store that rejected the last write takes one now."""
        store = self._shared.provider.store
        if store.rejects_writes:
            await probe_writes(store, time.time())

    def upstream_states(self) -> list[UpstreamState]:
        """How the upstreams of this process are."""
        return [describe_upstream(upstream) for upstream in self._generation.upstreams.values()]

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return sum(len(server.connections) for server, _ in self._servers)

    async def drain(self, *, grace_s: float) -> None:
        """Take no more connections; requests in flight have `grace_s` seconds to finish."""
        for server, _ in self._servers:
            server.drain()
        await asyncio.gather(*(acceptor.close_when_empty() for _, acceptor in self._servers))
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        quiet_since = loop.time()
        while (self.connections or self.acceptor.handshakes) and loop.time() < end:
            if self.acceptor.handshakes or self._metrics.data_plane.inflight_requests:
                quiet_since = loop.time()
            elif loop.time() - quiet_since > DRAIN_LINGER_S:
                break
            await asyncio.sleep(DRAIN_POLL_S)
        if self._metrics.data_plane.inflight_requests:
            _log.warning(
                "%d requests did not finish within the grace period",
                self._metrics.data_plane.inflight_requests,
            )

    async def stop(self) -> None:
        """Close everything. What `drain` did not wait for is cut off."""
        await self._stack.aclose()
