"""From the configuration of upstreams to the upstreams."""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from gateway.app.build.derive import derive
from gateway.config import Config
from gateway.config.upstreams import UpstreamConfig, WeightedTarget
from gateway.http.h2 import is_available
from gateway.metrics import DataPlaneMetrics, Metrics
from gateway.upstream import retry_policy as causes
from gateway.upstream.circuit_breaker import BREAKERS
from gateway.upstream.discovery import Discovery, DnsResolver
from gateway.upstream.health_checks import HealthChecks, HealthPolicy
from gateway.upstream.retry_policy import RetryPolicy
from gateway.upstream.target import MakeContext, Target
from gateway.upstream.upstream import Upstream, UpstreamCounts


def build_upstreams(config: Config, metrics: Metrics) -> dict[str, Upstream]:
    """Build the upstreams by name, for an explanation: nothing can be sent to `https` targets."""
    trusts_none = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return {
        name: build_upstream(name, settings, metrics, workers=config.workers, tls=trusts_none)
        for name, settings in config.upstreams.items()
    }


def build_upstream(
    name: str,
    settings: UpstreamConfig,
    metrics: Metrics,
    *,
    workers: int,
    tls: ssl.SSLContext | None,
    http1_tls: MakeContext | None = None,
) -> Upstream:
    """Build one upstream. Of what is limited for all `workers` together, it gets one's share.

    `tls` is for `https` targets, and None where there are none; `http1_tls` makes the one for
    connections to them that must be of HTTP/1.1, where it is another one.
    """
    dns, limits = settings.dns, settings.circuit_breaker.share(workers)
    resolver = DnsResolver(dns.servers, family=dns.family)
    upstream = Upstream(
        name,
        _targets(settings, resolver, tls, http1_tls),
        durations=metrics.data_plane.upstream(name),
        balance=settings.balance,
        hash_on=settings.hash_on,
        slow_start=settings.slow_start if settings.slow_start.window_s else None,
        limits=limits,
        outliers=settings.outlier_detection,
        retries=RetryPolicy(settings.retries.share(workers), max_retries=limits.max_retries),
        hedge_after_s=settings.hedging.after if settings.hedging else 0.0,
        counts=_counts(name, metrics.data_plane),
    )
    if dns.discover and any(target.has_name for target in upstream.targets):
        upstream.attend(
            Discovery(
                upstream,
                resolver.look_up,
                refresh_s=dns.refresh,
                max_ttl_s=dns.max_ttl,
            )
        )
    if check := settings.health_check:
        upstream.checks_health = True
        upstream.attend(
            HealthChecks(
                upstream,
                derive(
                    HealthPolicy,
                    check,
                    host=check.host or "",
                    path=check.path or "",
                    grpc_service=None if check.grpc is None else check.grpc.service,
                    expected_statuses=_statuses(check.expected_statuses),
                ),
            )
        )
    return upstream


def _targets(
    settings: UpstreamConfig,
    resolver: DnsResolver,
    tls: ssl.SSLContext | None,
    http1_tls: MakeContext | None,
) -> list[Target]:
    server_name = settings.tls.server_name if settings.tls else None
    protocol = settings.protocol
    if protocol == "auto" and not is_available():
        protocol = "http1"
    targets = []
    for entry in settings.targets:
        if isinstance(entry, WeightedTarget):
            url, weight = entry.url, entry.weight
        else:
            url, weight = entry, 1
        targets.append(
            Target(
                url,
                settings.timeouts,
                weight=weight,
                protocol=protocol,
                tls=tls,
                http1_tls=http1_tls,
                server_name=server_name,
                resolve=resolver.resolve if settings.dns.servers else None,
            )
        )
    return targets


def _counts(name: str, metrics: DataPlaneMetrics) -> UpstreamCounts:
    reasons = (
        causes.CONNECT_FAILURE,
        causes.RESET,
        causes.STATUS,
        causes.STALE,
        causes.REFUSED,
        causes.HEDGE,
    )
    return UpstreamCounts(
        retries=metrics.upstream_event("retries", name, reasons),
        ejections=metrics.upstream_event(
            "ejections",
            name,
            ("connect_failure", "consecutive_5xx", "consecutive_gateway_failure"),
        ),
        overflows=metrics.upstream_event("overflows", name, BREAKERS),
        health_checks=metrics.upstream_event("health_checks", name, ("ok", "failed")),
    )


def _statuses(ranges: Iterable[str]) -> frozenset[int]:
    statuses: set[int] = set()
    for text in ranges:
        first, _, last = text.partition("-")
        statuses.update(range(int(first), int(last or first) + 1))
    return frozenset(statuses)
