"""The provider of a configuration, opened on its store: for a process, or for a command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
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
from gateway.oauth.bounded_reads import BoundedReads
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.foreign import ForeignTokens
from gateway.oauth.foreign.introspection import IntrospectionServers
from gateway.oauth.foreign.jwt import JwtIssuers
from gateway.oauth.keys.remote import RemoteKeys
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Change, Store
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.validator import BearerValidator
from gateway.proxy.outbound import render_identity
from gateway.store import open_store


@dataclass(frozen=True, slots=True)
class Provider:
    """The parts of the provider that more than one part of the gateway works with."""

    store: Store
    policy: ProviderPolicy
    limiter: FailedClientLimiter
    server: AuthorizationServer
    validator: BearerValidator
    signing_keys: SigningKeys
    remote_keys: RemoteKeys
    proofs: DpopProofs
    seal: Seal
    fetcher: JsonFetcher


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
    hasher, fetcher = SecretHasher(), JsonFetcher()
    stack.push_async_callback(hasher.close)
    stack.push_async_callback(fetcher.close)
    seal = Seal(seal_secret(config))
    signing_keys = SigningKeys(store, seal, signing_policy(config))
    remote_keys = RemoteKeys(fetcher.get)
    dpop = config.provider.dpop
    proofs = DpopProofs(seal, requires_nonce=dpop.require_nonce, max_age_s=dpop.max_age)
    validator = BearerValidator(
        BoundedReads(store, at_once=config.cache.max_store_reads),
        metrics,
        max_entries=config.cache.max_entries,
        ttl_s=config.cache.ttl,
        negative_ttl_s=config.cache.negative_ttl,
        stale_s=config.cache.stale_if_store_down,
        render_identity=render_identity,
        audience=gateway_audience(config),
        foreign=_foreign_tokens(config, remote_keys, fetcher),
    )
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
    return Provider(
        store,
        policy,
        limiter,
        server,
        validator,
        signing_keys,
        remote_keys,
        proofs,
        seal,
        fetcher,
    )


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
        provider = await open_provider(config, Metrics(), FailedClientLimiter(), stack)
        yield provider.server
