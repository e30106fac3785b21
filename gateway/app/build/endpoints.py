"""The endpoints of a provider, and the rate limits that its processes share."""

from __future__ import annotations

from contextlib import AsyncExitStack

from gateway.app.build.sign_in import authorization_pages
from gateway.app.provider import Provider
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.oauth.endpoints import ProviderEndpoints
from gateway.oauth.policy import ProviderPolicy
from gateway.rate_limit import LocalRateLimits, RateLimits, SharedRateLimits
from gateway.store import open_rate_limits
from gateway.store_url import RedisUrl, parse_store_url


def build_endpoints(
    config: Config, provider: Provider, policy: ProviderPolicy, metrics: Metrics, rates: RateLimits
) -> ProviderEndpoints:
    """Build what serves the provider's paths."""
    return ProviderEndpoints(
        provider.server,
        provider.validator,
        policy,
        provider.limiter,
        metrics,
        records=provider.store.records,
        proofs=provider.proofs,
        signing_keys=provider.signing_keys,
        authorization=authorization_pages(config, provider, policy, metrics),
        rates=rates,
    )


def build_rate_limits(
    config: Config,
    metrics: Metrics,
    stack: AsyncExitStack,
    shared: SharedRateLimits | None = None,
) -> RateLimits:
    """Build the rate limits: those that replicas share in a store, else `shared`, else those of
    this process. `stack` closes them.

    PostgreSQL counts only where it is named for that: each request costs it a transaction.
    """
    asked = config.rate_limit.store if config.rate_limit is not None else None
    url = asked or config.store
    by_store = None
    if asked or isinstance(parse_store_url(url), RedisUrl):
        by_store = open_rate_limits(url)
    if by_store is not None:
        stack.push_async_callback(by_store.close)
        shared = by_store
    decisions = metrics.data_plane.rate_limit_decisions

    def count(result: str) -> None:
        decisions[result] += 1

    return RateLimits(LocalRateLimits(), shared, count=count)
