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
    """Build the rate limits: those that the store shares, where it does, else `shared`, else those
    of this process. `stack` closes them."""
    if by_store := open_rate_limits(config.store):
        stack.push_async_callback(by_store.close)
        shared = by_store
    decisions = metrics.data_plane.rate_limit_decisions

    def count(result: str) -> None:
        decisions[result] += 1

    return RateLimits(LocalRateLimits(), shared, count=count)
