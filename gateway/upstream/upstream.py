"""An upstream: a named group of endpoints that serve the same thing.

Chooses an endpoint for each request. Which of them may be chosen is worked out
when one goes up, down or away, not for each request; an upstream with one endpoint has
nothing to choose.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.http.errors import NoTargetError
from gateway.http.request_head import RequestHead
from gateway.metrics import Histogram, Tally
from gateway.upstream.balancing import Balance, make_balancer
from gateway.upstream.circuit_breaker import Breaker
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.outlier_detection import FailureCounts
from gateway.upstream.retry_policy import RetryLimiter, RetryPolicy
from gateway.upstream.settings import (
    CircuitBreaker,
    OutlierDetection,
    Retries,
    SlowStart,
    UpstreamTimeouts,
)
from gateway.upstream.target import Target


@dataclass(frozen=True, slots=True)
class UpstreamCounts:
    """Counters of an upstream besides its requests."""

    retries: Tally = field(default_factory=Tally)
    """By what they were made for."""
    ejections: Tally = field(default_factory=Tally)
    """By reason."""
    overflows: Tally = field(default_factory=Tally)
    """What a circuit breaker held back, by breaker."""
    health_checks: Tally = field(default_factory=Tally)
    """By result."""


class EndpointHealth(NamedTuple):
    """The health of an endpoint, as far as it was found out."""

    is_healthy: bool
    unreachable_until: float
    ejected_until: float
    ejected_for: str
    ejections: int


class BackgroundService(Protocol):
    """A background service of an upstream: discovery, health checks."""

    def start(self) -> None:
        """Begin."""

    def sync(self) -> None:
        """The endpoints are others now."""

    async def stop(self) -> None:
        """End."""


class Upstream:
    """Use as `start()`, then `await stop()`; both do nothing for one without companions."""

    def __init__(
        self,
        name: str,
        targets: Sequence[Target],
        *,
        durations: Histogram,
        balance: Balance = "round_robin",
        hash_on: str = "client_id",
        slow_start: SlowStart | None = None,
        limits: CircuitBreaker | None = None,
        outliers: OutlierDetection | None = None,
        retries: RetryPolicy | None = None,
        hedge_after_s: float = 0.0,
        counts: UpstreamCounts | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """`hash_on` is `client_id`, `source` or `header:NAME`."""
        self.name = name
        self.targets = tuple(targets)
        self.durations = durations
        self.balance = balance
        self.counts = counts or UpstreamCounts()
        self.outliers = outliers
        self.chance = chance or random.Random()  # noqa: S311 - no secret
        self.breaker = Breaker(limits or CircuitBreaker(), self.counts.overflows)
        self.breaker.evict = self._evict
        self.retries = retries or RetryPolicy(Retries())
        self.retry_budget = RetryLimiter(self.retries)
        self.hedge_after_s = hedge_after_s
        self.hash_on = hash_on if balance == "consistent_hash" else ""
        """What requests are kept together by; empty where nothing is."""
        self._hash_header = hash_on.partition(":")[2].lower().encode()
        timeouts = self.targets[0].timeouts if self.targets else UpstreamTimeouts()
        self.per_try_s = timeouts.per_try_s
        self.total_s = timeouts.total_s
        self.is_timed = bool(self.per_try_s or self.total_s or hedge_after_s)
        """Whether its requests have deadlines beyond those of a connection."""
        self.inspects_responses = bool(outliers or self.retries.statuses or hedge_after_s)
        """Whether anything depends on the status of its responses."""
        self._limits_requests = (
            self.breaker.limits.max_requests < self.breaker.limits.max_connections
        )
        self._slow_start = slow_start
        self._balancer = make_balancer(balance, self.chance)
        self._services: list[BackgroundService] = []
        self._timer: asyncio.TimerHandle | None = None
        self._down: set[Endpoint] = set()
        self._retired: list[Endpoint] = []
        self._is_stopped = False
        self.checks_health = False
        """Whether health checks say which of its endpoints are healthy."""
        self._known: dict[str, EndpointHealth] = {}
        """By key, of the endpoints of the upstream that it replaces."""
        self.endpoints = [self._make_endpoint(target, "") for target in self.targets]
        self._only: Endpoint | None = None
        self._settle(self.endpoints)

    def __repr__(self) -> str:
        return f"<Upstream {self.name}, {len(self.endpoints)} endpoints>"

    # For each request.

    def hash_key(self, client_id: str, source: str, head: RequestHead) -> str:
        """Return the key by which `consistent_hash` chooses an endpoint. Where that is missing,
        it is the client's address."""
        if self._hash_header:
            values = head.values(self._hash_header)
            return values[0].decode("latin-1") if values else source
        return client_id or source if self.hash_on == "client_id" else source

    def choose(self, key: str) -> Endpoint:
        """The endpoint for a request. Raises `OverloadError` above `max_requests`,
        and `NoTargetError` where there is none."""
        only = self._only
        if only is not None:
            return only
        if not self.endpoints:
            raise NoTargetError("no_target", "The upstream has no targets.")
        if self._limits_requests and self.active_requests >= self.breaker.limits.max_requests:
            raise self.breaker.refuse("max_requests")
        return self._balancer.choose(key)

    def choose_other(self, key: str, tried: Sequence[Endpoint]) -> Endpoint:
        """The endpoint for another try: one that was not tried yet, if there is one."""
        now = asyncio.get_running_loop().time()
        up = [endpoint for endpoint in self.endpoints if endpoint.is_up(now)] or self.endpoints
        others = [endpoint for endpoint in up if endpoint not in tried]
        return self._balancer.choose_among(others or up, key)

    @property
    def active_requests(self) -> int:
        """Requests that are under way, those that wait for a connection included."""
        return sum(endpoint.pool.active for endpoint in self.endpoints)

    # What changes.

    def set_addresses(self, target: Target, addresses: Sequence[str]) -> None:
        """A name has these addresses now. Those that it has no more drain: their idle connections
        close, requests in progress finish."""
        if not addresses or self._is_stopped:
            return
        known = {one.address: one for one in self.endpoints if one.target is target}
        if set(known) == set(addresses):
            return
        now = asyncio.get_running_loop().time()
        kept: list[Endpoint] = []
        for other in self.targets:
            if other is not target:
                kept += [one for one in self.endpoints if one.target is other]
                continue
            for address in dict.fromkeys(addresses):
                endpoint = known.pop(address, None)
                if endpoint is None:
                    endpoint = self._make_endpoint(target, address)
                    endpoint.warm_up(now)
                kept.append(endpoint)
        self.endpoints = kept
        for gone in known.values():
            gone.pool.retire()
            self._down.discard(gone)
        self._retired = [one for one in (*self._retired, *known.values()) if one.pool.active]
        for service in self._services:
            service.sync()
        self.refresh()

    def refresh(self) -> None:
        """Update which endpoints may be chosen."""
        if self._is_stopped:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        up = []
        ends = []
        for endpoint in self.endpoints:
            if endpoint.is_up(now):
                up.append(endpoint)
                if endpoint in self._down:
                    self._down.discard(endpoint)
                    endpoint.warm_up(now)
            else:
                self._down.add(endpoint)
                end = max(endpoint.unreachable_until, endpoint.ejected_until)
                if end > now:
                    ends.append(end)
        # Where all are down, trying one is better than refusing them all.
        self._settle(up or self.endpoints)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(min(ends), self.refresh) if ends else None

    def _settle(self, eligible: list[Endpoint]) -> None:
        is_only = len(self.endpoints) == 1 and not self._limits_requests
        self._only = self.endpoints[0] if is_only else None
        if eligible:
            self._balancer.update(eligible, self.endpoints)

    def inherit(self, before: Upstream) -> None:
        """Continue with what was found out about endpoints of the same URL and address, those
        that discovery finds later included. Called before `start`."""
        self._known = {one.key: _state_of(one) for one in before.endpoints}
        for endpoint in self.endpoints:
            self._remember(endpoint)
        self.refresh()

    def _remember(self, endpoint: Endpoint) -> None:
        state = self._known.get(endpoint.key)
        if state is None:
            return
        endpoint.unreachable_until = state.unreachable_until
        if self.checks_health:  # otherwise it would stay unhealthy
            endpoint.is_healthy = state.is_healthy
        if endpoint.failures is not None:
            endpoint.failures.ejections = state.ejections
            endpoint.ejected_until = state.ejected_until
            endpoint.ejected_for = state.ejected_for

    def _make_endpoint(self, target: Target, address: str) -> Endpoint:
        endpoint = Endpoint(
            target,
            address,
            breaker=self.breaker,
            ejections=self.counts.ejections,
            on_change=self.refresh,
            on_outlier=self._eject,
            on_multiplexed=self._limit_requests,
            slow_start=self._slow_start,
            failures=None if self.outliers is None else FailureCounts(self.outliers),
        )
        self._remember(endpoint)
        return endpoint

    def _limit_requests(self) -> None:
        """A connection carries many requests: what bounds those is no longer how many
        connections there may be."""
        if not self._limits_requests:
            self._limits_requests = True
            self.refresh()

    def _eject(self, endpoint: Endpoint, reason: str) -> None:
        """Eject an outlier, unless it is the last one, or too many are ejected already."""
        policy, failures = self.outliers, endpoint.failures
        now = asyncio.get_running_loop().time()
        if policy is None or failures is None or endpoint.ejected_until > now:
            return
        others = [one for one in self.endpoints if one is not endpoint]
        if endpoint.pool.is_retired or not any(one.is_up(now) for one in others):
            return
        ejected = sum(one.ejected_until > now for one in others)
        if not policy.may_eject(ejected=ejected, total=len(self.endpoints)):
            return
        endpoint.ejected_until = failures.eject(now)
        endpoint.ejected_for = reason
        self.counts.ejections[reason] += 1
        self.refresh()

    def _evict(self) -> None:
        for endpoint in self.endpoints:
            if endpoint.pool.close_idle():
                return

    # Its life.

    def attend(self, service: BackgroundService) -> None:
        """Start and stop something with it."""
        self._services.append(service)

    def start(self) -> None:
        """Begin what goes on beside the requests."""
        for service in self._services:
            service.start()

    async def stop(self) -> None:
        """Retire: no more is sent, idle connections close, requests in progress finish."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for service in self._services:
            await service.stop()
        for endpoint in self.endpoints:
            endpoint.pool.retire()

    @property
    def is_busy(self) -> bool:
        """Whether a request is in progress, here or at an address that it has no more."""
        return any(endpoint.pool.active for endpoint in (*self.endpoints, *self._retired))

    def close(self) -> None:
        """Close every connection, those with a request in progress too."""
        for endpoint in (*self.endpoints, *self._retired):
            endpoint.pool.close()


def _state_of(endpoint: Endpoint) -> EndpointHealth:
    return EndpointHealth(
        endpoint.is_healthy,
        endpoint.unreachable_until,
        endpoint.ejected_until,
        endpoint.ejected_for,
        endpoint.failures.ejections if endpoint.failures is not None else 0,
    )
