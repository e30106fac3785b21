"""The authorization server without the rest of the gateway, for the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.app.wiring import provider_policy
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.server import AuthorizationServer
from gateway.store import open_store


@asynccontextmanager
async def open_authorization_server(config: Config) -> AsyncIterator[AuthorizationServer]:
    """The provider of `config`, working on its store beside a running gateway.

    Raises `StoreError` where the store can't be opened.
    """
    store = await open_store(config.store)
    hasher = SecretHasher()
    try:
        yield AuthorizationServer(
            store, provider_policy(config), hasher, FailedClientLimiter(), Metrics()
        )
    finally:
        await hasher.close()
        await store.close()
