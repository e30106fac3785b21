"""The status of the gateway for the admin listener: plain values, of all processes together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypedDict

import msgspec

from gateway.history.breakdown import Breakdown
from gateway.history.events import Event
from gateway.history.ring import History, Recent, Step, join
from gateway.reloads import Reload, Trigger
from gateway.upstream.status import BreakerState, EndpointState, UpstreamState

Row = Mapping[str, Any]
Readiness = Callable[[], Awaitable[Mapping[str, str]]]
UpstreamStates = Callable[[], Sequence[Sequence[UpstreamState]]]
"""How the upstreams of each process are."""
Explain = Callable[
    [str, str, Sequence[tuple[str, str]], str, Mapping[str, Any] | None], Awaitable[dict[str, Any]]
]
"""Of method, URL, headers, source address and claims of the token. Raises `ValueError` for what is
no request."""
LAST_STEPS = 12
"""Steps that make up "now": the last minute."""


class Reloads(Protocol):
    """Reloads the configuration, and remembers the results."""

    async def reload(self, trigger: Trigger) -> Reload:
        """Make an attempt. Raises nothing."""

    def recent(self) -> Sequence[Reload]:
        """The last attempts, the newest first."""

    def configuration(self) -> Sequence[tuple[str, str]]:
        """Each key in effect with its value, secrets masked."""


By = Literal["route", "client"]
"""Whose requests are added up."""


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """Plain values and functions that give plain values."""

    recent: Recent
    readiness: Readiness
    routes: Callable[[], Sequence[Row]] = tuple
    """A row for each route and host, as `gateway routes --json` prints them."""
    upstream_states: UpstreamStates = tuple
    explain: Explain | None = None
    """Explains how a request would be routed, as `gateway explain --json` does."""
    reloads: Reloads | None = None
    store_kind: str = ""
    """`SQLite`, `Redis`."""
    workers: int = 1

    def events(self, kind: str | None = None, *, since: float = 0.0) -> list[Event]:
        """Return recent events, of one kind or all, newest first; `since` a Unix time."""
        found = list(self.recent.events.newest()) + [
            as_event(reload) for reload in (self.reloads.recent() if self.reloads else ())
        ]
        chosen = [event for event in found if kind in {None, event.kind} and event.last_at >= since]
        return sorted(chosen, key=lambda event: event.last_at, reverse=True)

    def traffic(self, by: By) -> Breakdown:
        """Return the requests of each route or client."""
        history = self.recent.history
        return history.clients if by == "client" else history.routes

    def routes_for_client(self, client_id: str) -> list[str]:
        """The routes that name this client, which are only for those that they name."""
        found = [row["name"] for row in self.routes() if client_id in row["clients"]]
        return list(dict.fromkeys(found))

    def last_minute(self) -> Step:
        """Return the last minute as one step."""
        return join(self.recent.history.steps()[-LAST_STEPS:])


def as_event(reload: Reload) -> Event:
    """Convert a reload to an event."""
    is_good = reload.result == "ok"
    lines = map(str, reload.changes) if is_good else reload.problems
    return Event(
        kind="reload",
        title="Configuration loaded" if is_good else "Configuration refused",
        at=reload.at,
        last_at=reload.at,
        is_bad=not is_good,
        who={"signal": "SIGHUP", "file": "changed file", "api": "admin API"}[reload.trigger],
        detail="\n".join(lines) or "nothing is different",
    )


def _describe_store(history: History) -> Literal["ok", "unavailable", "rejects writes"]:
    if not history.is_store_up:
        return "unavailable"
    return "ok" if history.is_store_writable else "rejects writes"


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Quantiles(TypedDict):
    """Durations in seconds; null where there was no request."""

    p50: Seconds | None
    p95: Seconds | None
    p99: Seconds | None


class Overview(TypedDict):
    """The state of the gateway; null where nothing happened in the last minute."""

    requests_per_second: Annotated[float, msgspec.Meta(ge=0)]
    error_share: Share | None
    request_seconds: Quantiles
    upstream_seconds: Quantiles
    cache_hit_ratio: Share | None
    tokens_issued: Count
    inflight_requests: Count
    connections: Count
    store: Literal["ok", "unavailable", "rejects writes"]
    workers: Count


def describe_now(gateway_status: GatewayStatus) -> Overview:
    """The state of the gateway in plain values: the last complete step for rates, the last
    minute for shares and quantiles, which need more than one request to mean something."""
    history = gateway_status.recent.history
    minute = gateway_status.last_minute()
    return {
        "requests_per_second": history.steps()[-1].rate,
        "error_share": minute.error_share,
        "request_seconds": describe_quantiles(minute.quantile),
        "upstream_seconds": describe_quantiles(minute.upstream_quantile),
        "cache_hit_ratio": minute.hit_ratio,
        "tokens_issued": minute.tokens_issued,
        "inflight_requests": history.inflight,
        "connections": history.connections,
        "store": _describe_store(history),
        "workers": gateway_status.workers,
    }


def describe_quantiles(quantile: Callable[[float], float | None]) -> Quantiles:
    """Describe durations by three quantiles."""
    return {"p50": quantile(0.5), "p95": quantile(0.95), "p99": quantile(0.99)}


class EndpointDescription(TypedDict):
    """One address of a target, in all processes."""

    target: str
    address: str
    up_in: int
    processes: int
    reasons: list[str]
    seconds_left: float
    active: int
    idle: int
    weight: int
    current_weight: float
    ejections: int
    failures_in_row: int
    last_errors: list[str]


class BreakerDescription(TypedDict):
    """One limit of a circuit breaker, in all processes."""

    breaker: str
    used: int
    limit: int
    open_in: int
    overflows: int


class UpstreamDescription(TypedDict):
    """One upstream, in all processes."""

    name: str
    balance: str
    processes: int
    active: int
    idle: int
    endpoints: list[EndpointDescription]
    breakers: list[BreakerDescription]


def describe_upstreams(reported: Sequence[Sequence[UpstreamState]]) -> list[UpstreamDescription]:
    """A row for each upstream, from what each process reported of its own.

    Counts are added up. Each process rates endpoints by itself: `up_in` of
    `processes` think that one is up.
    """
    by_name: dict[str, list[UpstreamState]] = {}
    for states in reported:
        for state in states:
            by_name.setdefault(state.name, []).append(state)
    return [_describe(states) for states in by_name.values()]


def _describe(states: list[UpstreamState]) -> UpstreamDescription:
    endpoints: dict[tuple[str, str], list[EndpointState]] = {}
    breakers: dict[str, list[BreakerState]] = {}
    for state in states:
        for endpoint in state.endpoints:
            endpoints.setdefault((endpoint.target, endpoint.address), []).append(endpoint)
        for breaker in state.breakers:
            breakers.setdefault(breaker.breaker, []).append(breaker)
    return {
        "name": states[0].name,
        "balance": states[0].balance,
        "processes": len(states),
        "active": sum(endpoint.active for state in states for endpoint in state.endpoints),
        "idle": sum(endpoint.idle for state in states for endpoint in state.endpoints),
        "endpoints": [_describe_endpoint(known) for known in endpoints.values()],
        "breakers": [_describe_breaker(known) for known in breakers.values()],
    }


def _describe_endpoint(known: list[EndpointState]) -> EndpointDescription:
    down = [endpoint for endpoint in known if not endpoint.is_up]
    reasons = dict.fromkeys(endpoint.reason for endpoint in known if endpoint.reason)
    return {
        "target": known[0].target,
        "address": known[0].address,
        "up_in": len(known) - len(down),
        "processes": len(known),
        "reasons": list(reasons),
        "seconds_left": round(max(endpoint.seconds_left for endpoint in known), 1),
        "active": sum(endpoint.active for endpoint in known),
        "idle": sum(endpoint.idle for endpoint in known),
        "weight": known[0].weight,
        "current_weight": round(min(endpoint.current_weight for endpoint in known), 2),
        "ejections": max(endpoint.ejections for endpoint in known),
        "failures_in_row": sum(endpoint.failures_in_row for endpoint in known),
        "last_errors": list(dict.fromkeys(one.last_error for one in known if one.last_error)),
    }


def _describe_breaker(known: list[BreakerState]) -> BreakerDescription:
    return {
        "breaker": known[0].breaker,
        "used": sum(breaker.used for breaker in known),
        "limit": sum(breaker.limit for breaker in known),
        "open_in": sum(breaker.is_open for breaker in known),
        "overflows": sum(breaker.overflows for breaker in known),
    }
