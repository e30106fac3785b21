"""The authorization server of a configuration: within a gateway, and alone for the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.app.fetching import JsonFetcher
from gateway.app.seal_key import seal_secret
from gateway.app.wiring import provider_policy, signing_policy
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.keys.remote import RemoteKeys
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Store
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.server import AuthorizationServer
from gateway.store import open_store


@dataclass(frozen=True, slots=True)
class ProviderParts:
    """The authorization server, and what it shares with others."""

    server: AuthorizationServer
    policy: ProviderPolicy
    limiter: FailedClientLimiter
    signing_keys: SigningKeys
    remote_keys: RemoteKeys
    fetcher: JsonFetcher
    proofs: DpopProofs


def build_provider(
    config: Config, store: Store, metrics: Metrics, stack: AsyncExitStack
) -> ProviderParts:
    """The provider on a store; `stack` closes what it opened."""
    policy = provider_policy(config)
    hasher, fetcher = SecretHasher(), JsonFetcher()
    stack.push_async_callback(hasher.close)
    stack.push_async_callback(fetcher.close)
    limit = config.provider.failed_client_limit
    limiter = FailedClientLimiter(failures=limit.failures, window_s=limit.window)
    seal = Seal(seal_secret(config))
    signing_keys = SigningKeys(store, seal, signing_policy(config))
    remote_keys = RemoteKeys(fetcher.get)
    proofs = DpopProofs(seal, requires_nonce=config.provider.dpop.require_nonce)
    server = AuthorizationServer(
        store, policy, hasher, limiter, metrics, signer=signing_keys, key_source=remote_keys
    )
    return ProviderParts(server, policy, limiter, signing_keys, remote_keys, fetcher, proofs)


@asynccontextmanager
async def open_authorization_server(config: Config) -> AsyncIterator[AuthorizationServer]:
    """The provider of `config`, working on its store beside a running gateway.

    Raises `StoreError` where the store can't be opened.
    """
    async with AsyncExitStack() as stack:
        store = await open_store(config.store)
        stack.push_async_callback(store.close)
        yield build_provider(config, store, Metrics(), stack).server
