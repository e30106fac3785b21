"""The state of upstreams, as plain data and as metrics.

Labels are names of the configuration: an address from DNS is in the data, never in
a label.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.upstream.circuit_breaker import BREAKERS
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.upstream import Upstream


@dataclass(frozen=True, slots=True)
class EndpointState:
    """State of one endpoint in one process."""

    target: str
    """The URL of its target, as configured."""
    address: str
    """The address from DNS; empty where the URL says it all."""
    is_up: bool
    """Whether it gets requests, as long as any other does."""
    reason: str
    """Why it is down: `unhealthy`, `unreachable`, or what it was ejected for."""
    seconds_left: float
    """For how long at least it stays down; 0 where it is unknown."""
    active: int
    """Requests that it has now."""
    idle: int
    """Connections that wait for requests."""
    weight: int
    current_weight: float
    """The weight in a slow start."""
    ejections: int
    """How often it was ejected lately; the next time lasts so much longer."""
    failures_in_row: int = 0
    """Requests that failed since one succeeded."""
    last_error: str = ""
    """Why the last of them failed: a reason code, or `status 500`."""


@dataclass(frozen=True, slots=True)
class BreakerState:
    """One circuit breaker."""

    breaker: str
    used: int
    limit: int
    is_open: bool
    overflows: int
    """What it has held back so far."""


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """State of one upstream."""

    name: str
    balance: str
    endpoints: tuple[EndpointState, ...]
    breakers: tuple[BreakerState, ...]


def describe_upstream(upstream: Upstream) -> UpstreamState:
    """The state of an upstream of this process, now."""
    now = asyncio.get_running_loop().time()
    return UpstreamState(
        upstream.name,
        upstream.balance,
        tuple(_describe_endpoint(endpoint, now) for endpoint in upstream.endpoints),
        tuple(_describe_breakers(upstream)),
    )


def _describe_endpoint(endpoint: Endpoint, now: float) -> EndpointState:
    reason, until = "", 0.0
    if endpoint.ejected_until > now:
        reason, until = endpoint.ejected_for, endpoint.ejected_until
    elif not endpoint.is_healthy:
        reason = "unhealthy"
    elif endpoint.unreachable_until > now:
        reason, until = "unreachable", endpoint.unreachable_until
    return EndpointState(
        target=endpoint.target.url,
        address=endpoint.address,
        is_up=endpoint.is_up(now),
        reason=reason,
        seconds_left=max(0.0, until - now),
        active=endpoint.pool.active,
        idle=endpoint.pool.idle,
        weight=endpoint.weight,
        current_weight=endpoint.weight_at(now),
        ejections=0 if endpoint.failures is None else endpoint.failures.ejections,
        failures_in_row=endpoint.failures_in_row,
        last_error=endpoint.last_error if endpoint.failures_in_row else "",
    )


def _describe_breakers(upstream: Upstream) -> Iterator[BreakerState]:
    breaker = upstream.breaker
    limits, active = breaker.limits, upstream.active_requests
    used = {
        "max_connections": (breaker.connections, limits.max_connections),
        "max_pending_requests": (breaker.pending, limits.max_pending_requests),
        "max_requests": (active, limits.max_requests),
        "max_retries": (upstream.retry_budget.active, upstream.retry_budget.limit(active)),
    }
    for name in BREAKERS:
        count, limit = used[name]
        yield BreakerState(name, count, limit, count >= limit, breaker.overflows[name])


def upstream_metrics(upstreams: Iterable[Upstream]) -> Iterator[Metric]:
    """The state of targets, connections and circuit breakers. Called in any thread; the event
    loop's clock is this one."""
    now = time.monotonic()

    def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"gateway_upstream_{name}", text, labels=["upstream", *labels])

    up = gauge("target_up", "Whether an endpoint of the target gets requests (1 or 0).", "target")
    ejected = gauge("ejected", "Endpoints that are ejected as outliers now.")
    unhealthy = gauge("unhealthy", "Endpoints that the health checks say no to now.")
    endpoints = gauge("endpoints", "Addresses of the targets.")
    connections = gauge("connections", "Connections to an upstream.", "state")
    requests = gauge("requests", "Requests that an upstream has now.", "state")
    is_open = gauge("breaker_open", "Whether a circuit breaker is open (1 or 0).", "breaker")
    for upstream in upstreams:
        name, breaker = upstream.name, upstream.breaker
        members = upstream.endpoints
        up_targets = {one.target.url for one in members if one.is_up(now)}
        for target in dict.fromkeys(target.url for target in upstream.targets):
            up.add_metric([name, target], target in up_targets)
        ejected.add_metric([name], sum(one.ejected_until > now for one in members))
        unhealthy.add_metric([name], sum(not one.is_healthy for one in members))
        endpoints.add_metric([name], len(members))
        idle = sum(endpoint.pool.idle for endpoint in members)
        connections.add_metric([name, "active"], breaker.connections - idle)
        connections.add_metric([name, "idle"], idle)
        requests.add_metric([name, "active"], upstream.active_requests)
        requests.add_metric([name, "pending"], breaker.pending)
        for state in _describe_breakers(upstream):
            is_open.add_metric([name, state.breaker], state.is_open)
    yield from (up, ejected, unhealthy, endpoints, connections, requests, is_open)
