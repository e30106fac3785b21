"""From the rules of routes on scopes and claims to what checks them and fills them in."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.claim_path import ClaimPath, parse_claim_path
from gateway.config import Config
from gateway.config.claims import ClaimValues
from gateway.config.routes import RouteConfig
from gateway.config.workloads import WorkloadConfig
from gateway.oauth.claim_rules import ClaimRule, ClaimView
from gateway.templates import IN_REQUEST_HEADERS, claim_paths, parse_template


def claim_rules(section: RouteConfig | WorkloadConfig) -> tuple[ClaimRule, ...]:
    """Compile the rules of a route or a workload on claims."""
    return tuple(
        ClaimRule(parse_claim_path(name), frozenset(values.any), frozenset(values.all))
        for name, values in _claims(section)
    )


def describe_claims(section: RouteConfig | WorkloadConfig) -> list[str]:
    """Describe the rules of a route or a workload on claims."""
    return [
        f"{name}: "
        + ", ".join(
            f"{kind} of {' '.join(given)}"
            for kind, given in (("one", values.any), ("all", values.all))
            if given
        )
        for name, values in _claims(section)
    ]


def _claims(section: RouteConfig | WorkloadConfig) -> Iterator[tuple[str, ClaimValues]]:
    for name, values in section.claims.items():
        if isinstance(values, ClaimValues):
            yield name, values
        else:
            given = [values] if isinstance(values, str) else values
            yield name, ClaimValues.model_construct(any=given, all=[])


def claim_fields(config: Config) -> frozenset[bytes]:
    """Return the request header fields that a route fills with claims, in lower case: no client
    sets them, whatever the route, since an upstream may receive the requests of several."""
    return frozenset(
        name.lower().encode() for route in config.routes for name, _ in _filled_fields(route)
    )


def _filled_fields(route: RouteConfig) -> Iterator[tuple[str, list[ClaimPath]]]:
    headers = route.request_headers
    for name, value in headers.set.items() if headers is not None else ():
        if paths := claim_paths(parse_template(value, IN_REQUEST_HEADERS)):
            yield name, paths


def claim_view(config: Config) -> ClaimView:
    """Build what collects the claims that rules and templates name."""
    names = {rule.path.claim for route in config.routes for rule in claim_rules(route)}
    for route in config.routes:
        names |= {path.claim for _, paths in _filled_fields(route) for path in paths}
    return ClaimView(names, issuer=config.provider.issuer)
