"""How upstreams are, the processes of a gateway taken together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from gateway.upstream.status import BreakerState, EndpointState, UpstreamState


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
    """A row for each upstream, from what each process told of its own.

    What is counted is added up. Each process judges endpoints by itself: `up_in` of
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
    }


def _describe_breaker(known: list[BreakerState]) -> BreakerDescription:
    return {
        "breaker": known[0].breaker,
        "used": sum(breaker.used for breaker in known),
        "limit": sum(breaker.limit for breaker in known),
        "open_in": sum(breaker.is_open for breaker in known),
        "overflows": sum(breaker.overflows for breaker in known),
    }
