"""From the configuration to the plain values that the OAuth provider takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.app.build.claims import claim_rules, claim_view
from gateway.app.build.derive import derive
from gateway.claim_path import parse_claim_path
from gateway.config import Config
from gateway.config.issuers import JwtIssuerConfig
from gateway.config.provider import RefreshTokensConfig
from gateway.config.routes import RouteConfig
from gateway.config.workloads import WorkloadConfig
from gateway.oauth.access import Access
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.claim_rules import ClaimView
from gateway.oauth.endpoints.discovery import resource_metadata_path
from gateway.oauth.external_issuers.claims import DEFAULT_NAMES, ClaimNames
from gateway.oauth.external_issuers.introspection import IntrospectionServer
from gateway.oauth.external_issuers.jwt import JwtIssuer
from gateway.oauth.external_issuers.presets import PRESETS
from gateway.oauth.keys.remote import KeyLocation
from gateway.oauth.keys.signing import SigningPolicy
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.policy import (
    JWT_BEARER,
    REFRESH_TOKEN,
    IdentityAssertionRule,
    ProtectedResource,
    ProviderPolicy,
    RefreshPolicy,
    Tool,
    name_in_words,
    resource_url,
)
from gateway.oauth.workloads.certificates import read_authorities
from gateway.oauth.workloads.rules import WorkloadRule
from gateway.oauth.workloads.subjects import SubjectPattern
from gateway.rate_limit import RateLimit
from gateway.store_url import NONE


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """Rules of the provider, and which issuers and audiences are trusted."""

    config: Config
    policy: ProviderPolicy
    audience: frozenset[str]
    view_claims: ClaimView

    @property
    def trust(self) -> object:
        """The settings that decide which issuers and audiences are trusted, and what is kept of
        their tokens."""
        return (
            jwt_issuers(self.config),
            introspection_servers(self.config),
            self.audience,
            self.view_claims.names,
        )


def provider_rules(config: Config) -> ProviderRules:
    """Build the rules of the provider. Looks at every route: not for the thread of an event loop
    that serves requests."""
    policy = provider_policy(config)
    policy.name_resources(())  # what that looks up is kept from now on
    return ProviderRules(config, policy, gateway_audience(config), claim_view(config))


def provider_policy(config: Config) -> ProviderPolicy:
    """The rules of the OAuth provider."""
    provider = config.provider
    registration, refresh_tokens = provider.registration, provider.refresh_tokens
    documents = provider.client_id_metadata_documents
    limit, total = registration.rate_limit, registration.total_rate_limit
    return derive(
        ProviderPolicy,
        provider,
        registration,
        redirect_schemes=frozenset((*provider.redirect_schemes, *registration.redirect_schemes)),
        unused_client_ttl_s=registration.unused_ttl or None,
        total_registration_rate_limit=RateLimit(
            total.requests, total.per, total.burst or total.requests
        ),
        scopes=tuple(provider.scopes),
        client_ttl_s=provider.client_ttl or None,
        renew=provider.client_renewal,
        grant_types=(
            *provider.grant_types,
            *((REFRESH_TOKEN,) if refresh_tokens.strategy != "none" else ()),
            *((JWT_BEARER,) if _has_assertions(config) else ()),
        ),
        refresh=refresh_policy(refresh_tokens),
        registration_mode=registration.mode,
        registration_token=registration.token.get_secret_value() if registration.token else None,
        client_jwks_uris=tuple(registration.jwks_uris),
        registration_scopes=_optional(registration.scopes),
        registration_grant_types=_optional(registration.grant_types),
        client_document_hosts=tuple(documents.hosts) if documents.enabled else None,
        cors_origins=tuple(provider.cors.origins),
        registration_rate_limit=RateLimit(limit.requests, limit.per, limit.burst or limit.requests),
        takes_certificates=bool(
            provider.client_certificate_header
            or (config.listen.tls is not None and config.listen.tls.client_ca is not None)
        ),
        reserved_client_ids=frozenset(
            (
                *(client_id for route in config.routes for client_id in route.clients),
                *config.clients,
                *(rule.client_id for rule in config.workloads),
                *(name for rule in config.identity_assertions for name in rule.clients),
            )
        ),
        resources=protected_resources(config),
        other_authorization_servers=(
            tuple(dict.fromkeys(issuer.issuer for issuer in config.jwt_issuers))
            if config.store == NONE
            else None
        ),
        workloads=workload_rules(config),
        identity_assertions=tuple(
            derive(IdentityAssertionRule, rule, scopes=_optional(rule.scopes))
            for rule in config.identity_assertions
        ),
    )


def _has_assertions(config: Config) -> bool:
    """Whether there are JWTs that the JWT bearer grant takes."""
    return bool(config.identity_assertions) or any(rule.issuer for rule in config.workloads)


def workload_rules(config: Config) -> tuple[WorkloadRule, ...]:
    """Build the rules for workloads. Raises `OSError` and `ValueError` for CA certificates that
    can't be used."""
    return tuple(map(workload_rule, config.workloads))


def workload_rule(section: WorkloadConfig) -> WorkloadRule:
    """Build a rule for workloads. Raises as `workload_rules`."""
    return derive(
        WorkloadRule,
        section,
        ca=read_authorities(section.ca) if section.ca is not None else b"",
        subject=SubjectPattern(section.subject),
        claims=claim_rules(section),
        scopes=_optional(section.scopes),
    )


def _optional(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def refresh_policy(section: RefreshTokensConfig) -> RefreshPolicy:
    """Build the rules for refresh tokens."""
    return derive(RefreshPolicy, section)


def protected_resources(config: Config) -> tuple[ProtectedResource, ...]:
    """The routes that take tokens, as clients know them: one for each path and host. Of several,
    those with the fewest conditions say which scopes are needed: the others are for some requests
    only, which a client can ask for when it makes them."""
    found: dict[tuple[str, str], ProtectedResource] = {}
    least: dict[tuple[str, str], int] = {}
    for route in sorted(config.routes, key=_count_conditions):
        if route.auth == "none" or "bearer" not in route.credentials:
            continue
        for host in [name for name in route.match.hosts if not name.startswith("*.")] or [""]:
            resource = ProtectedResource(
                path=route.match.path,
                exact=route.match.exact,
                host=host,
                scopes=(*route.all_scopes, *route.any_scopes),
                audiences=tuple(route.audience),
                token_format=route.token_format,
                tools=_tools(route),
            )
            # Routes of one path that differ in their methods are one resource.
            known = found.setdefault((resource.path, host), resource)
            conditions = _count_conditions(route)
            fewest = least.setdefault((resource.path, host), conditions)
            if known is not resource:
                scopes = resource.scopes if conditions == fewest else ()
                found[resource.path, host] = replace(
                    known,
                    exact=known.exact and resource.exact,
                    scopes=tuple(dict.fromkeys((*known.scopes, *scopes))),
                    audiences=tuple(dict.fromkeys((*known.audiences, *resource.audiences))),
                    tools=(*known.tools, *resource.tools),
                    token_format=known.token_format or resource.token_format,
                )
    return tuple(found.values())


def _tools(route: RouteConfig) -> tuple[Tool, ...]:
    if route.mcp is None:
        return ()
    words = route.mcp.tool_descriptions
    return tuple(
        Tool(words.get(name) or name_in_words(name), tuple(scopes))
        for name, scopes in (route.mcp.tools or {}).items()
    )


def _count_conditions(route: RouteConfig) -> int:
    match = route.match
    return (match.regex is not None) + len(match.headers) + len(match.query)


def signing_policy(config: Config) -> SigningPolicy:
    """How JWT access tokens are signed."""
    return derive(SigningPolicy, config.provider.jwt, config.provider)


def build_access(config: Config, route: RouteConfig, proofs: DpopProofs | None) -> Access:
    """Build the requirements of a route for tokens."""
    issuer, path = config.provider.issuer, route.match.path
    hosts = route.match.hosts or [""]
    named = [host for host in hosts if not host.startswith("*.")]
    resources = [resource_url(issuer, path, host) for host in named]
    if path == "/":  # other issuers may write the slash
        resources += [f"{url}/" for url in resources]
    # A route that is on wildcard hosts only has no URL of its own to be known by.
    origin = resource_url(issuer, "/", named[0] if named else "")
    audience = frozenset(route.audience)
    if route.mcp is not None:  # a token for nothing in particular may be meant for another server
        audience |= frozenset(resources)
    return Access(
        scopes=frozenset(route.all_scopes),
        any_scopes=tuple(route.any_scopes),
        claim_rules=claim_rules(route),
        clients=frozenset(route.clients),
        audience=audience,
        resources=frozenset(resources),
        origins=tuple(resource_url(issuer, "/", host) for host in hosts),
        resource_metadata=origin + resource_metadata_path(path),
        prefix="\0" if route.match.exact else path.rstrip("/") + "/",
        proofs=proofs,
        credentials=frozenset(route.credentials),
    )


def failed_client_limiter(config: Config) -> FailedClientLimiter:
    """The limit on failed clients, for a gateway in one process."""
    limit = config.provider.failed_client_limit
    return FailedClientLimiter(failures=limit.failures, window_s=limit.window)


def jwt_issuers(config: Config) -> list[JwtIssuer]:
    """The issuers whose JWTs are accepted."""
    return [build_jwt_issuer(section) for section in config.jwt_issuers]


def build_jwt_issuer(section: JwtIssuerConfig) -> JwtIssuer:
    """Build an issuer whose JWTs are accepted."""
    return derive(
        JwtIssuer,
        section,
        keys=derive(KeyLocation, section),
        types=frozenset(kind.lower().removeprefix("application/") for kind in section.typ),
        names=_claim_names(section),
    )


def _claim_names(section: JwtIssuerConfig) -> ClaimNames:
    """Return the claims of the preset, and those that are given in their place."""
    names = DEFAULT_NAMES if section.preset is None else PRESETS[section.preset]
    if section.client_claim is not None:
        names = replace(names, client=(parse_claim_path(section.client_claim),))
    if section.subject_claim is not None:
        names = replace(names, subject=parse_claim_path(section.subject_claim))
    if section.scope_claims is not None:
        names = replace(names, scopes=(tuple(map(parse_claim_path, section.scope_claims)),))
    return names


def introspection_servers(config: Config) -> list[IntrospectionServer]:
    """The issuers that are asked about tokens that are not ours."""
    return [derive(IntrospectionServer, server) for server in config.introspection_servers]


def gateway_audience(config: Config) -> frozenset[str]:
    """Return the audiences that name the gateway as a whole: the issuer, and what foreign tokens
    call it.

    What names a route is for that route alone.
    """
    issuers = (issuer for issuer in config.jwt_issuers if issuer.access_tokens)
    names = {name for issuer in issuers for name in issuer.audience}
    names.update(name for server in config.introspection_servers for name in server.audience)
    routes = {name for route in config.routes for name in route.audience}
    return frozenset(names - routes | {config.provider.issuer})
