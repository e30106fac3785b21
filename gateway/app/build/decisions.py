"""Builds external authorization from the shared parts."""

from __future__ import annotations

from gateway.access_log import AccessLog
from gateway.addresses import Networks
from gateway.app.build.listeners import client_limits, rate_limit
from gateway.config import Config
from gateway.downstream.connections import ConnectionManager
from gateway.metrics import Histogram, Metrics
from gateway.oauth.endpoints import ProviderEndpoints
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.decisions import DecisionLog, Decisions
from gateway.proxy.router import Router
from gateway.proxy.tracing import Tracing
from gateway.rate_limit import RateLimits, RateRules


def build_decisions(
    config: Config,
    metrics: Metrics,
    *,
    access_log: AccessLog,
    router: Router,
    validator: TokenCache,
    endpoints: ProviderEndpoints,
    rates: RateLimits,
    tracing: Tracing | None,
) -> Decisions | None:
    """Build the pipeline for authorization checks; None where `authz` is not configured."""
    authz = config.authz
    if authz is None:
        return None
    counts = metrics.data_plane
    if counts.authz_duration is None:
        counts.authz_duration = Histogram()
    return Decisions(
        dialect=authz.dialect,
        path=authz.path,
        router=router,
        validator=validator,
        endpoints=endpoints,
        request_log=DecisionLog(
            metrics, access_log, durations=counts.authz_duration, tracing=tracing
        ),
        rates=rates,
        rate_rules=RateRules(rate_limit(config.rate_limit)),
    )


def configure_decisions(
    config: Config, pipeline: Decisions, decision_clients: ConnectionManager
) -> None:
    """Serve the next checks on these connections by `plane`."""
    authz = config.authz
    decision_clients.reconfigure(
        pipeline.handle,
        limits=client_limits(config),
        trusted_proxies=Networks.parse(authz.trusted_proxies if authz else ()),
        certificate_header=(config.provider.client_certificate_header or "").lower().encode(),
    )
