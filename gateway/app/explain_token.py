"""Stands for the token of a request that is explained: any that its route accepts, or one whose
claims are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.app.build.claims import claim_view
from gateway.app.build.provider import gateway_audience, jwt_issuers
from gateway.claim_path import ClaimPath, read_values
from gateway.config import Config
from gateway.oauth.access import CachedToken, constraint_of
from gateway.oauth.claim_rules import ClaimRule, Claims
from gateway.oauth.external_issuers.claims import has_required, make_token, read_audience
from gateway.oauth.models import AccessToken
from gateway.proxy.router import Route
from gateway.proxy.upstream_head import render_identity
from gateway.templates import Variable

_OF_OURS = ("act", "aud", "sub", "username")


class ClaimsError(ValueError):
    """The claims are those of no token; the text says why."""


def some_token(route: Route, client: str) -> CachedToken:
    """Return a token that the route accepts, whose client is unknown."""
    access = route.access
    token = AccessToken(b"", client, "CLIENT NAME", tuple(sorted(access.needed_scopes)), 0.0, 0.0)
    claims: dict[str, object] = {}
    for path in _filled_claims(route):
        _put(claims, path, f"CLAIM {path}")
    for rule in access.claim_rules:
        _put(claims, rule.path, sorted(rule.all_of) or min(rule.any_of))
    return CachedToken(token, 0.0, render_identity(token), claims=claims)


def token_of_claims(config: Config, claims: Mapping[str, Any]) -> CachedToken:
    """Return the token that has these claims: of the issuer that they name, else of our own.
    Nothing is verified, and what it is bound to is left out. Raises `ClaimsError`."""
    view = claim_view(config)
    said = {name: value for name, value in claims.items() if value is not None and name != "cnf"}
    issuers = [
        one for one in jwt_issuers(config) if one.issuer == said.get("iss") and one.access_tokens
    ]
    if issuers:
        token = None
        for issuer in issuers:
            named = read_audience(said, issuer.names)
            if issuer.audience.intersection(named) and has_required(said, issuer.names):
                token = make_token(
                    "", issuer.name, said, issued_at=0.0, expires_at=0.0, names=issuer.names,
                    extra=view.names,
                )  # fmt: skip
                break
        if token is None:
            raise ClaimsError(
                f"the claims are of no token that {issuers[0].name} of jwt_issuers vouches for: "
                "look at its audience, preset and client_claim"
            )
    else:
        client = said.get("client_id", "CLIENT_ID")
        scopes = said.get("scope", "")
        if not isinstance(client, str) or not isinstance(scopes, str):
            raise ClaimsError("client_id and scope are texts")
        known = {name: said[name] for name in _OF_OURS if name in said}
        token = AccessToken(
            b"", client, client, tuple(scopes.split()), 0.0, 0.0, known,
            extra_claims=said if ":" in client else {},
        )  # fmt: skip
    constraint = constraint_of(token, gateway_audience(config))
    return CachedToken(token, 0.0, render_identity(token), constraint, claims=view(token))


def describe_rules(rules: Sequence[ClaimRule], claims: Claims | None) -> list[dict[str, Any]]:
    """Describe the rules of a route on claims and, where those of a token are given, which of them
    hold, and what the token has."""
    described: list[dict[str, Any]] = []
    for rule in rules:
        row: dict[str, Any] = {
            "claim": str(rule.path), "any": sorted(rule.any_of), "all": sorted(rule.all_of),
        }  # fmt: skip
        if claims is not None:
            row["has"] = list(read_values(rule.path.find(claims)))
            row["holds"] = rule.holds(claims)
        described.append(row)
    return described


def _filled_claims(route: Route) -> list[ClaimPath]:
    if route.changes is None:
        return []
    templates = (template for _, template in route.changes.fields.fields)
    variables = (part for one in templates for part in one if isinstance(part, Variable))
    return [variable.claim for variable in variables if variable.claim is not None]


def _put(claims: dict[str, object], path: ClaimPath, value: object) -> None:
    """Have the claims lead to a value by a path, as far as no other stands in the way."""
    for name in path.names[:-1]:
        inner = claims.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        claims = inner
    claims[path.names[-1]] = value
