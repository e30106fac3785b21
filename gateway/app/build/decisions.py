"""External authorization, put together: its checks are made by the shared parts."""

from __future__ import annotations

from gateway.access_log import AccessLog
from gateway.addresses import Networks
from gateway.app.build.claims import claim_fields
from gateway.app.build.derive import rate_limit
from gateway.app.build.listeners import client_limits
from gateway.config import Config
from gateway.downstream.connections import ConnectionManager
from gateway.metrics import Histogram, Metrics
from gateway.oauth.authentication.cached_secrets import CachedClientSecrets
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.decisions import build_decisions
from gateway.proxy.pipeline import Pipeline
from gateway.proxy.request_log import RequestLog
from gateway.proxy.router import Router
from gateway.proxy.tracing import Tracing
from gateway.rate_limit import RateLimits, RateRules


def decision_pipeline(
    config: Config,
    metrics: Metrics,
    *,
    access_log: AccessLog,
    router: Router,
    validator: TokenCache,
    rates: RateLimits,
    tracing: Tracing | None,
    secrets: CachedClientSecrets | None = None,
) -> Pipeline | None:
    """Build what responds to authorization checks; None where `authz` is not configured."""
    authz = config.authz
    if authz is None:
        return None
    counts = metrics.data_plane
    if counts.authz_duration is None:
        counts.authz_duration = Histogram()
    return build_decisions(
        dialect=authz.dialect,
        path=authz.path,
        router=router,
        validator=validator,
        log=RequestLog(metrics, access_log, tracing=tracing, checks=counts.authz_duration),
        rates=rates,
        rate_rules=RateRules(rate_limit(config.rate_limit)),
        secrets=secrets,
        claim_fields=claim_fields(config),
    )


def configure_decisions(
    config: Config, pipeline: Pipeline, decision_clients: ConnectionManager
) -> None:
    """Handle the next checks on these connections by `pipeline`."""
    authz = config.authz
    decision_clients.reconfigure(
        pipeline.handle,
        limits=client_limits(config),
        trusted_proxies=Networks.parse(authz.trusted_proxies if authz else ()),
        certificate_header=(config.provider.client_certificate_header or "").lower().encode(),
    )
