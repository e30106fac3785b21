"""Decision mode, put together: its connections, whose questions the shared parts answer."""

from __future__ import annotations

from ipaddress import ip_network

from gateway.access_log import AccessLog
from gateway.app.wiring import client_limits, rate_limit
from gateway.config import Config
from gateway.metrics import Histogram, Metrics
from gateway.oauth.endpoints import ProviderEndpoints
from gateway.oauth.validator import BearerValidator
from gateway.proxy.authz import DecisionPlane, DecisionRecorder
from gateway.proxy.client_server import ClientServer
from gateway.proxy.router import Router
from gateway.proxy.tracing import Tracing
from gateway.rate_limit import RateLimits, RateRules


def decision_server(
    config: Config,
    metrics: Metrics,
    *,
    access_log: AccessLog,
    router: Router,
    validator: BearerValidator,
    endpoints: ProviderEndpoints,
    rates: RateLimits,
    tracing: Tracing | None,
) -> ClientServer | None:
    """The connections of the proxies that ask; None where `authz` is not configured."""
    authz = config.authz
    if authz is None:
        return None
    metrics.authz_duration = durations = Histogram()
    plane = DecisionPlane(
        dialect=authz.dialect,
        path=authz.path,
        router=router,
        validator=validator,
        endpoints=endpoints,
        recorder=DecisionRecorder(metrics, access_log, durations=durations, tracing=tracing),
        rates=rates,
        rate_rules=RateRules(rate_limit(config.rate_limit)),
    )
    return ClientServer(
        plane.handle,
        limits=client_limits(config),
        metrics=metrics,
        trusted_proxies=tuple(ip_network(cidr) for cidr in authz.trusted_proxies),
        certificate_header=(config.provider.client_certificate_header or "").lower().encode(),
    )
