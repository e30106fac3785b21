"""The provider of a configuration, opened on its store: for a process, or for a command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.app.wiring import provider_policy
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Change, Store
from gateway.oauth.server import AuthorizationServer, ProviderPolicy
from gateway.store import open_store


@dataclass(frozen=True, slots=True)
class Provider:
    """The parts of the provider that more than one part of the gateway works with."""

    store: Store
    policy: ProviderPolicy
    limiter: FailedClientLimiter
    server: AuthorizationServer


async def open_provider(
    config: Config,
    metrics: Metrics,
    limiter: FailedClientLimiter,
    stack: AsyncExitStack,
    *,
    on_change: Callable[[Change], None] = lambda change: None,
) -> Provider:
    """Open the store and what stands on it; `stack` closes it again.

    `on_change` is told of every revocation through this provider. Raises `StoreError`
    where the store can't be opened.
    """
    policy = provider_policy(config)
    store = await open_store(
        config.store,
        observe=lambda operation, seconds: metrics.store_operation_seconds.labels(
            operation
        ).observe(seconds),
        on_outcome=metrics.store_up.set,
        on_change=on_change,
    )
    stack.push_async_callback(store.close)
    hasher = SecretHasher()
    stack.push_async_callback(hasher.close)
    server = AuthorizationServer(store, policy, hasher, limiter, metrics)
    return Provider(store, policy, limiter, server)


@asynccontextmanager
async def open_authorization_server(config: Config) -> AsyncIterator[AuthorizationServer]:
    """The provider of `config`, working on its store beside a running gateway.

    Raises `StoreError` where the store can't be opened.
    """
    async with AsyncExitStack() as stack:
        provider = await open_provider(config, Metrics(), FailedClientLimiter(), stack)
        yield provider.server
