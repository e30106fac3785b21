"""The authorization server of a configuration: within a gateway, and alone for the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.app.fetching import JsonFetcher
from gateway.app.provider_wiring import (
    gateway_audience,
    introspection_servers,
    jwt_issuers,
    provider_policy,
    signing_policy,
)
from gateway.app.seal_key import seal_secret
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.foreign import ForeignTokens
from gateway.oauth.foreign.introspection import IntrospectionServers
from gateway.oauth.foreign.jwt import JwtIssuers
from gateway.oauth.keys.remote import RemoteKeys
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Store
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.validator import BearerValidator
from gateway.proxy.outbound import render_identity
from gateway.store import open_store


@dataclass(frozen=True, slots=True)
class ProviderParts:
    """The authorization server, and what it shares with others."""

    server: AuthorizationServer
    validator: BearerValidator
    policy: ProviderPolicy
    limiter: FailedClientLimiter
    signing_keys: SigningKeys
    remote_keys: RemoteKeys
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
    validator = BearerValidator(
        store,
        metrics,
        max_entries=config.cache.max_entries,
        ttl_s=config.cache.ttl,
        negative_ttl_s=config.cache.negative_ttl,
        render_identity=render_identity,
        audience=gateway_audience(config),
        foreign=_foreign_tokens(config, remote_keys, fetcher),
    )
    proofs = DpopProofs(seal, requires_nonce=config.provider.dpop.require_nonce)
    server = AuthorizationServer(
        store,
        policy,
        hasher,
        limiter,
        metrics,
        signer=signing_keys,
        key_source=remote_keys,
        tokens=validator,
    )
    return ProviderParts(server, validator, policy, limiter, signing_keys, remote_keys, proofs)


def _foreign_tokens(
    config: Config, remote_keys: RemoteKeys, fetcher: JsonFetcher
) -> ForeignTokens | None:
    issuers, servers = jwt_issuers(config), introspection_servers(config)
    if not issuers and not servers:
        return None
    for issuer in issuers:
        remote_keys.watch(issuer.jwks_uri)
    return ForeignTokens(
        JwtIssuers(issuers, remote_keys), IntrospectionServers(servers, fetcher.post_form)
    )


@asynccontextmanager
async def open_authorization_server(config: Config) -> AsyncIterator[AuthorizationServer]:
    """The provider of `config`, working on its store beside a running gateway.

    Raises `StoreError` where the store can't be opened.
    """
    async with AsyncExitStack() as stack:
        store = await open_store(config.store)
        stack.push_async_callback(store.close)
        yield build_provider(config, store, Metrics(), stack).server
