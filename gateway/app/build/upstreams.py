"""From the configuration of upstreams to the upstreams."""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterable

from gateway.config import Config
from gateway.config.upstreams import Retries, WeightedTarget
from gateway.config.upstreams import Upstream as UpstreamConfig
from gateway.metrics import DataPlaneMetrics, Metrics
from gateway.upstream import retry_policy as causes
from gateway.upstream.circuit_breaker import BREAKERS, Limits
from gateway.upstream.discovery import Discovery, DnsResolver
from gateway.upstream.health_checks import HealthChecks, HealthPolicy
from gateway.upstream.outlier_detection import GATEWAY_FAILURES, OutlierPolicy
from gateway.upstream.retry_policy import RetryPolicy
from gateway.upstream.slow_start import SlowStart
from gateway.upstream.target import Target, Timeouts
from gateway.upstream.upstream import Counts, Upstream


def build_upstreams(config: Config, metrics: Metrics) -> dict[str, Upstream]:
    """Build the upstreams by name, for an explanation: nothing can be sent to `https` targets."""
    trusts_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return {
        name: build_upstream(name, settings, metrics, workers=config.workers, tls=trusts_nobody)
        for name, settings in config.upstreams.items()
    }


def build_upstream(
    name: str,
    settings: UpstreamConfig,
    metrics: Metrics,
    *,
    workers: int,
    tls: ssl.SSLContext | None,
) -> Upstream:
    """Build one upstream. Of what is limited for all `workers` together, it gets one's share.

    `tls` is for `https` targets, and None where there are none.
    """
    dns = settings.dns
    resolver = DnsResolver(dns.servers, family=dns.family)
    upstream = Upstream(
        name,
        _targets(settings, resolver, tls),
        durations=metrics.data_plane.upstream(name),
        balance=settings.balance,
        hash_on=settings.hash_on,
        slow_start=_slow_start(settings),
        limits=_limits(settings, workers),
        outliers=_outliers(settings),
        retries=_retries(settings.retries, settings.circuit_breaker.max_retries, workers),
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
                close=resolver.close,
            )
        )
    if check := settings.health_check:
        upstream.attend(
            HealthChecks(
                upstream,
                HealthPolicy(
                    path=check.path,
                    host=check.host or "",
                    interval_s=check.interval,
                    timeout_s=check.timeout,
                    unhealthy_threshold=check.unhealthy_threshold,
                    healthy_threshold=check.healthy_threshold,
                    expected_statuses=_statuses(check.expected_statuses),
                ),
            )
        )
    return upstream


def _targets(
    settings: UpstreamConfig, resolver: DnsResolver, tls: ssl.SSLContext | None
) -> list[Target]:
    timeouts = Timeouts(
        connect_s=settings.timeouts.connect,
        response_head_s=settings.timeouts.response_head,
        idle_s=settings.timeouts.idle,
        keepalive_s=settings.timeouts.keepalive,
        tunnel_s=settings.timeouts.tunnel,
        per_try_s=settings.timeouts.per_try,
        total_s=settings.timeouts.total,
    )
    server_name = settings.tls.server_name if settings.tls else None
    targets = []
    for entry in settings.targets:
        if isinstance(entry, WeightedTarget):
            url, weight = entry.url, entry.weight
        else:
            url, weight = entry, 1
        targets.append(
            Target(
                url,
                timeouts,
                weight=weight,
                tls=tls,
                server_name=server_name,
                resolve=resolver.resolve if settings.dns.servers else None,
            )
        )
    return targets


def _slow_start(settings: UpstreamConfig) -> SlowStart | None:
    slow = settings.slow_start
    if not slow.window:
        return None
    return SlowStart(slow.window, slow.aggression, float(slow.min_weight_percent))


def _limits(settings: UpstreamConfig, workers: int) -> Limits:
    breaker = settings.circuit_breaker
    return Limits(
        math.ceil(breaker.max_connections / workers),
        math.ceil(breaker.max_pending_requests / workers),
        math.ceil(breaker.max_requests / workers),
    )


def _outliers(settings: UpstreamConfig) -> OutlierPolicy | None:
    outliers = settings.outlier_detection
    if outliers is None:
        return None
    return OutlierPolicy(
        consecutive_5xx=outliers.consecutive_5xx,
        consecutive_gateway_failures=outliers.consecutive_gateway_failures,
        interval_s=outliers.interval,
        base_ejection_s=outliers.base_ejection_time,
        max_ejection_s=outliers.max_ejection_time,
        max_ejection_percent=outliers.max_ejection_percent,
    )


def _retries(retries: Retries, max_retries: int | None, workers: int) -> RetryPolicy:
    statuses = set(retries.statuses)
    if "gateway-error" in retries.retry_on:
        statuses |= GATEWAY_FAILURES
    return RetryPolicy(
        attempts=retries.attempts,
        on_connect_failure="connect-failure" in retries.retry_on,
        on_reset="reset" in retries.retry_on,
        statuses=frozenset(statuses if retries.attempts else ()),
        backoff_base_s=retries.backoff.base,
        backoff_max_s=retries.backoff.max,
        budget_percent=float(retries.budget.percent),
        min_concurrency=math.ceil(retries.budget.min_concurrency / workers),
        max_retries=None if max_retries is None else math.ceil(max_retries / workers),
    )


def _counts(name: str, metrics: DataPlaneMetrics) -> Counts:
    reasons = (causes.CONNECT_FAILURE, causes.RESET, causes.STATUS, causes.STALE, causes.HEDGE)
    return Counts(
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
