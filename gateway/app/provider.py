"""The provider of a configuration, opened on its store: for a process, or for a command."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from gateway.app.build.provider import (
    ProviderRules,
    introspection_servers,
    jwt_issuers,
    provider_rules,
    signing_policy,
)
from gateway.app.document_client import DocumentClient
from gateway.app.issuer_client import IssuerClient
from gateway.app.json_client import JsonClient
from gateway.app.secret_file import seal_secret
from gateway.app.workload_audit import WorkloadAudit, audit_note
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.oauth.api_keys import ApiKeys
from gateway.oauth.authentication.cached_secrets import CachedClientSecrets
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.bounded_reads import BoundedReads
from gateway.oauth.client_documents import ClientDocuments
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.external_issuers import ExternalTokens
from gateway.oauth.external_issuers.introspection import IntrospectionServers
from gateway.oauth.external_issuers.jwt import JwtIssuers
from gateway.oauth.keys.remote import RemoteKeys
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Change, Store, StoreError, StoreUnavailableError
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.token_cache import TokenCache
from gateway.oauth.usage import UsageTracker
from gateway.proxy.upstream_head import render_identity
from gateway.store import NO_STORE, StoreHealth, open_store
from gateway.store.none import NoStore
from gateway.store.transfer import UNFINISHED, is_unfinished
from gateway.store_url import NONE


@dataclass(slots=True)
class Provider:
    """The parts of the provider that more than one part of the gateway works with.

    They live as long as the process; `reconfigure` has them go by another configuration.
    """

    rules: ProviderRules
    documents: DocumentClient = field(repr=False)
    store: Store
    limiter: FailedClientLimiter
    server: AuthorizationServer
    validator: TokenCache
    signing_keys: SigningKeys
    remote_keys: RemoteKeys
    proofs: DpopProofs
    seal: Seal
    reads: BoundedReads = field(repr=False)
    fetcher: JsonClient = field(repr=False)
    usage: UsageTracker = field(repr=False)
    api_keys: ApiKeys
    secrets: CachedClientSecrets = field(repr=False)

    async def flush_usage(self) -> None:
        """Write when clients and API keys were last used. Raises `StoreUnavailableError`."""
        await self.usage.flush()
        await self.api_keys.flush()

    def reconfigure(self, rules: ProviderRules) -> None:
        """Go by another configuration from now on. What is cached lives on, but where whose
        tokens are believed has changed."""
        before, self.rules = self.rules, rules
        old, config = before.config, rules.config
        limit = config.provider.failed_client_limit
        self.limiter.reconfigure(failures=limit.failures, window_s=limit.window)
        self.documents.reconfigure(config.provider.client_id_metadata_documents.networks)
        self.server.reconfigure(rules.policy)
        if signing_policy(old) != signing_policy(config):
            self.signing_keys.reconfigure(signing_policy(config))
        dpop = config.provider.dpop
        self.proofs.reconfigure(
            requires_nonce=dpop.require_nonce,
            max_age_s=dpop.max_age,
            shared=self.store.records if dpop.replay == "store" else None,
        )
        self.api_keys.reconfigure(default_ttl_s=config.provider.api_keys.ttl or None)
        self.reads.reconfigure(at_once=config.cache.max_store_reads)
        self.validator.reconfigure(
            max_entries=config.cache.max_entries,
            ttl_s=config.cache.ttl,
            negative_ttl_s=config.cache.negative_ttl,
            stale_s=config.cache.stale_if_store_down,
            audience=rules.audience,
            view_claims=rules.view_claims,
            external=_external_tokens(rules, self.remote_keys, self.fetcher),
            is_trust_changed=before.trust != rules.trust,
        )


async def open_provider(
    config: Config,
    metrics: Metrics,
    limiter: FailedClientLimiter,
    stack: AsyncExitStack,
    *,
    on_change: Callable[[Change], None] = lambda change: None,
    must_exist: bool = False,
) -> Provider:
    """Open the store and what stands on it; `stack` closes it again.

    `on_change` is called with every revocation through this provider. Raises `StoreError`
    where the store can't be opened, or holds half of another one's content.
    """
    store = await _open_store(config, metrics, on_change, must_exist=must_exist)
    stack.push_async_callback(store.close)
    with suppress(StoreUnavailableError):  # whose response nothing waits for
        if await is_unfinished(store):
            raise StoreError(UNFINISHED)
    rules = provider_rules(config)
    hasher, fetcher = SecretHasher(), JsonClient()
    stack.push_async_callback(hasher.close)
    stack.push_async_callback(fetcher.close)
    seal = Seal(seal_secret(config))
    signing_keys = SigningKeys(store.records, seal, signing_policy(config))
    issuer_client = IssuerClient(fetcher)
    stack.push_async_callback(issuer_client.close)
    remote_keys = RemoteKeys(fetcher.get, fetch_from=issuer_client.fetch_from)
    usage = UsageTracker(store.usage)
    dpop = config.provider.dpop
    proofs = DpopProofs(
        seal,
        requires_nonce=dpop.require_nonce,
        max_age_s=dpop.max_age,
        shared=store.records if dpop.replay == "store" else None,
    )
    api_keys = ApiKeys(store, default_ttl_s=config.provider.api_keys.ttl or None)
    reads = BoundedReads(
        store.tokens,
        at_once=config.cache.max_store_reads,
        on_found=usage.read,
        api_keys=api_keys,
    )
    validator = TokenCache(
        reads,
        metrics,
        max_entries=config.cache.max_entries,
        ttl_s=config.cache.ttl,
        negative_ttl_s=config.cache.negative_ttl,
        stale_s=config.cache.stale_if_store_down,
        render_identity=render_identity,
        audience=rules.audience,
        view_claims=rules.view_claims,
        external=_external_tokens(rules, remote_keys, fetcher),
        api_keys=reads,
    )
    note = audit_note(store.records, retention_s=config.admin.audit_retention)
    documents = DocumentClient(config.provider.client_id_metadata_documents.networks)
    stack.push_async_callback(documents.close)
    server = AuthorizationServer(
        store,
        rules.policy,
        hasher,
        limiter,
        metrics,
        signer=signing_keys,
        key_source=remote_keys,
        tokens=validator,
        documents=ClientDocuments(store, rules.policy, documents.fetch),
        on_issued=usage.issued,
        on_workload=WorkloadAudit(note).issued,
        api_keys=api_keys,
    )
    return Provider(
        rules,
        documents,
        store,
        limiter,
        server,
        validator,
        signing_keys,
        remote_keys,
        proofs,
        seal,
        reads,
        fetcher,
        usage,
        api_keys,
        CachedClientSecrets(server, validator),
    )


async def _open_store(
    config: Config, metrics: Metrics, on_change: Callable[[Change], None], *, must_exist: bool
) -> Store:
    if config.store == NONE:
        return NoStore(time.time)
    return await open_store(
        config.store,
        observe=lambda operation, seconds: metrics.store.operation_seconds.labels(
            operation
        ).observe(seconds),
        health=StoreHealth(on_up=metrics.store.set_up, on_writable=metrics.store.set_writable),
        on_change=on_change,
        must_exist=must_exist,
    )


def _external_tokens(
    rules: ProviderRules, remote_keys: RemoteKeys, fetcher: JsonClient
) -> ExternalTokens | None:
    issuers, servers = jwt_issuers(rules.config), introspection_servers(rules.config)
    remote_keys.watch({issuer.keys for issuer in issuers})
    if not issuers and not servers:
        return None
    names = rules.view_claims.names
    return ExternalTokens(
        JwtIssuers(issuers, remote_keys, extra_claims=names),
        IntrospectionServers(servers, fetcher.post_form, extra_claims=names),
    )


@asynccontextmanager
async def open_provider_alone(
    config: Config, *, must_exist: bool = False
) -> AsyncIterator[Provider]:
    """The provider of `config`, working on its store beside a running gateway.

    Raises `StoreError` where the store can't be opened.
    """
    if config.store == NONE:
        raise StoreError(NO_STORE)
    async with AsyncExitStack() as stack:
        provider = await open_provider(
            config, Metrics(), FailedClientLimiter(), stack, must_exist=must_exist
        )
        yield provider
        await provider.flush_usage()
