"""Check that the parts of a configuration fit each other.

The rules look at every part that is sound by itself, also where others are not, so
that one run reports everything.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.config.acme import check_acme
from gateway.config.authz import Authz
from gateway.config.credentials import check_api_keys, check_credentials
from gateway.config.identity_assertions import (
    IdentityAssertionConfig,
    check_identity_assertions,
)
from gateway.config.issuer_rules import check_issuers
from gateway.config.mcp import check_mcp
from gateway.config.model import Admin, HttpRedirectConfig, Listen
from gateway.config.problems import Path
from gateway.config.provider import ProviderConfig
from gateway.config.route_rules import (
    check_changes,
    check_claim_matches,
    check_destination,
    check_request_filters,
    check_rights,
    match_key,
)
from gateway.config.routes import RouteConfig
from gateway.config.scalars import Section
from gateway.config.storeless import check_without_store
from gateway.config.upstream_rules import check_upstream
from gateway.config.upstreams import UpstreamConfig
from gateway.config.workloads import WorkloadConfig, check_workloads
from gateway.oauth.policy import JWT_BEARER
from gateway.store_url import NONE

Finding = tuple[Path, str]
SectionType = TypeVar("SectionType", bound=Section)

PROVIDER_PATHS = (
    "token_path", "create_client_path", "validate_path", "revoke_path", "introspect_path",
    "register_path", "authorize_path",
)  # fmt: skip
JWKS_PATH = "/jwks.json"
MIN_SEAL_KEY_CHARS = 32
MAX_CODE_TTL_S = 600.0  # RFC 6749 section 4.1.2

_CANONICAL_PATH = re.compile(r"/|(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~!$&'()*+,=:@-]+)+/?")


@dataclass
class _Parts:
    """The sound parts of a tree."""

    listen: Listen | None
    admin: Admin | None
    provider: ProviderConfig | None
    scopes: set[str]
    upstreams: set[str]
    has_trusted_proxies: bool
    authz: Authz | None
    has_authz: bool
    has_assertions: bool
    """Whether there are JWTs that the JWT bearer grant takes."""


def check_rules(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Each rule that is broken, as a path and what is wrong there."""
    raw_routes = tree.get("routes") or []
    routes = {}
    for at, raw in enumerate(raw_routes if isinstance(raw_routes, list) else []):
        if route := _sound(RouteConfig, raw):
            routes[at] = route
        elif isinstance(raw, dict):
            yield from _check_raw_path(("routes", at), raw)
    provider, upstreams = tree.get("provider", {}), tree.get("upstreams")
    scopes = provider.get("scopes") if isinstance(provider, dict) else None
    parts = _Parts(
        listen=_sound(Listen, tree.get("listen", {})),
        admin=_sound(Admin, tree.get("admin", {})),
        provider=_sound(ProviderConfig, provider),
        scopes=set(map(str, scopes)) if isinstance(scopes, list) else set(),
        upstreams=set(map(str, upstreams)) if isinstance(upstreams, dict) else set(),
        has_trusted_proxies=bool(tree.get("trusted_proxies")),
        authz=_sound(Authz, tree["authz"]) if tree.get("authz") else None,
        has_authz="authz" in tree,
        has_assertions=bool(tree.get("workloads") or tree.get("identity_assertions")),
    )
    yield from _check_listeners(parts)
    has_store = tree.get("store") != NONE
    if not has_store:
        yield from check_without_store(tree, routes)
    if parts.listen is not None:
        yield from _check_tls(parts.listen)
    if parts.provider is not None:
        yield from _check_provider(parts.provider, parts, has_store=has_store)
    for at, route in routes.items():
        yield from _check_route(("routes", at), route, parts)
    for name, raw in upstreams.items() if isinstance(upstreams, dict) else ():
        if upstream := _sound(UpstreamConfig, raw):
            yield from check_upstream(("upstreams", str(name)), upstream)
    limit = tree.get("rate_limit")
    if isinstance(limit, dict) and "requests" not in limit and limit.keys() != {"store"}:
        yield ("rate_limit", "requests"), "is required"
    yield from check_issuers(tree)
    workloads = dict(_sound_items(WorkloadConfig, tree.get("workloads")))
    yield from check_workloads(tree, workloads, parts.scopes)
    assertions = dict(_sound_items(IdentityAssertionConfig, tree.get("identity_assertions")))
    yield from check_identity_assertions(tree, assertions, parts.scopes)
    yield from _check_names(routes)
    yield from _check_ties(routes)
    yield from check_claim_matches(routes)


def _sound(model: type[SectionType], raw: object) -> SectionType | None:
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None


def _sound_items(model: type[SectionType], raw: object) -> Iterator[tuple[int, SectionType]]:
    """The items of a list that are sound by themselves, with their places."""
    for at, item in enumerate(raw if isinstance(raw, list) else []):
        if section := _sound(model, item):
            yield at, section


def _check_listeners(parts: _Parts) -> Iterator[Finding]:
    listeners: dict[str, Listen | Admin | Authz | HttpRedirectConfig | None] = {
        "listen": parts.listen, "admin": parts.admin, "authz": parts.authz,
        "listen.http_redirect": parts.listen.http_redirect if parts.listen else None,
    }  # fmt: skip
    everywhere = {"0.0.0.0", "::"}  # noqa: S104
    for (first, one), (second, other) in itertools.combinations(listeners.items(), 2):
        if one is None or other is None or not one.port:
            continue
        same_host = one.host == other.host or everywhere & {one.host, other.host}
        if one.port == other.port and same_host:
            yield (
                (*second.split("."), "port"),
                f"is the port of `{first}` too, expected another one",
            )
    if parts.authz is not None:
        yield from _check_path(("authz", "path"), parts.authz.path)
        if parts.authz.path.endswith("/"):
            yield ("authz", "path"), "must not end with a slash"


def _check_tls(listen: Listen) -> Iterator[Finding]:
    tls, where = listen.tls, ("listen", "tls")
    if listen.http_redirect is not None and tls is None:
        yield ("listen", "http_redirect"), "redirects to https, which needs listen.tls"
    if tls is None:
        return
    for key, other in (("cert", "key"), ("key", "cert")):
        if getattr(tls, key) is None and (getattr(tls, other) or tls.acme is None):
            yield (*where, key), "is required" + ("" if tls.acme else ", or acme in its place")
    if tls.acme is not None:
        yield from check_acme(
            (*where, "acme"), tls.acme, has_http_redirect=listen.http_redirect is not None
        )


def _check_provider(
    provider: ProviderConfig, parts: _Parts, *, has_store: bool
) -> Iterator[Finding]:
    where: Path = ("provider",)
    if has_store:
        yield from _check_registration(provider, parts)
    for at, scope in enumerate(provider.default_scopes):
        if scope not in provider.scopes:
            path = (*where, "default_scopes", at)
            yield path, f"scope {scope!r} is not one of provider.scopes"
    if provider.client_certificate_header and not parts.has_trusted_proxies:
        yield (
            (*where, "client_certificate_header"),
            "has no effect without trusted_proxies: no proxy is trusted to pass a certificate",
        )
    seal_key = provider.seal_key
    if seal_key is not None and len(seal_key.get_secret_value()) < MIN_SEAL_KEY_CHARS:
        yield (*where, "seal_key"), f"expected at least {MIN_SEAL_KEY_CHARS} random characters"
    yield from check_api_keys(provider.api_keys)
    yield from _check_users(provider)
    for scope in provider.users.pages.scopes:
        if scope not in provider.scopes:
            path = (*where, "users", "pages", "scopes", scope)
            yield path, f"scope {scope!r} is not one of provider.scopes"
    yield from _check_documents(provider)
    seen: dict[str, str] = {}
    for key in PROVIDER_PATHS:
        value: str = getattr(provider, key)
        yield from _check_path((*where, key), value)
        if value.startswith("/.well-known/") or value == JWKS_PATH:
            yield (*where, key), "is a path that the provider uses for something else"
        if value in seen:
            yield (*where, key), f"is the same as {seen[value]}, expected another path"
        seen.setdefault(value, key)


def _check_registration(provider: ProviderConfig, parts: _Parts) -> Iterator[Finding]:
    where: Path = ("provider", "registration")
    registration = provider.registration
    if registration.mode == "token" and registration.token is None:
        yield (
            (*where, "token"),
            "is required with mode token: set it, for instance to ${REGISTRATION_TOKEN}, "
            "or choose mode public, open or off",
        )
    if registration.mode in {"open", "public"} and not registration.fail_if_present:
        yield (
            (*where, "fail_if_present"),
            f"must be true with mode {registration.mode}: any peer could take over the clients of "
            "others",
        )
    if registration.mode == "public" and "authorization_code" not in provider.grant_types:
        yield (
            (*where, "mode"),
            "public is for clients that act for users: add authorization_code to "
            "provider.grant_types",
        )
    if registration.mode != "public" and registration.redirect_hosts:
        yield (*where, "redirect_hosts"), "has no effect without mode public"
    for at, scope in enumerate(registration.scopes or ()):
        if scope not in provider.scopes:
            path = (*where, "scopes", at)
            yield path, f"scope {scope!r} is not one of provider.scopes"
    offered: set[str] = {*provider.grant_types}
    if provider.refresh_tokens.strategy != "none":
        offered.add("refresh_token")
    if parts.has_assertions:
        offered.add(JWT_BEARER)
    for at, grant in enumerate(registration.grant_types or ()):
        if grant not in offered:
            path = (*where, "grant_types", at)
            yield path, f"grant {grant!r} is not one that the provider gives"


def _check_documents(provider: ProviderConfig) -> Iterator[Finding]:
    where: Path = ("provider", "client_id_metadata_documents")
    documents = provider.client_id_metadata_documents
    if documents.enabled and "authorization_code" not in provider.grant_types:
        yield (
            (*where, "enabled"),
            "is for clients that act for users: add authorization_code to provider.grant_types",
        )
    for key in ("hosts", "networks"):
        if getattr(documents, key) and not documents.enabled:
            yield (*where, key), "has no effect without enabled: true"


def _check_users(provider: ProviderConfig) -> Iterator[Finding]:
    where: Path = ("provider", "users", "oidc")
    users = provider.users
    if users.source == "oidc" and users.oidc is None:
        yield where, "is required with source oidc: it names the OpenID provider"
    if users.source != "oidc" and users.oidc is not None:
        yield where, "has no effect without source oidc"
    if provider.code_ttl > MAX_CODE_TTL_S:
        yield ("provider", "code_ttl"), "expected at most 10m (RFC 6749 4.1.2)"


def _check_raw_path(where: Path, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """Check the path of a route that is not sound, also where it stands beside `match`."""
    match = raw.get("match")
    for place, section in (((*where, "match", "path"), match), ((*where, "path"), raw)):
        path = section.get("path") if isinstance(section, dict) else None
        if isinstance(path, str) and path.startswith("/"):
            yield from _check_path(place, path)


def _check_path(place: Path, path: str) -> Iterator[Finding]:
    """Check a path for what other gateways have in theirs."""
    if "*" in path:
        above = path.partition("*")[0].rpartition("/")[0] or "/"
        yield (
            place,
            f"knows no `*`: a path matches all below it by itself, write {above!r}, or `regex`",
        )
    elif not _CANONICAL_PATH.fullmatch(path):
        yield place, _not_canonical(path)


def _check_route(where: Path, route: RouteConfig, parts: _Parts) -> Iterator[Finding]:
    path = route.match.path
    yield from check_destination(where, route, parts.upstreams, is_optional=parts.has_authz)
    yield from check_changes(where, route)
    yield from check_request_filters(where, route)
    yield from check_mcp(
        where,
        route.mcp,
        scopes=parts.scopes,
        auth=route.auth,
        forwards_token=route.forward_token,
    )
    yield from _check_path((*where, "match", "path"), path)
    if "*" not in path and path != "/" and path.endswith("/") and not route.match.exact:
        yield (
            (*where, "match", "path"),
            f"a prefix matches at segment boundaries by itself, write {path.rstrip('/')!r}",
        )
    prefix = route.rewrite.strip_prefix
    if prefix is not None and not (path == prefix or path.startswith(prefix.rstrip("/") + "/")):
        yield (
            (*where, "rewrite", "strip_prefix"),
            f"must be {path!r} or whole segments at its front",
        )
    elif prefix is not None and prefix.endswith("/"):
        yield (*where, "rewrite", "strip_prefix"), "must not end with a slash"
    yield from check_rights(where, route, parts.scopes)
    if route.match.exact and path in _reserved_paths(parts.provider):
        yield (*where, "match", "path"), "is a path of the provider, which serves it itself"
    yield from check_credentials(
        where,
        auth=route.auth,
        credentials=route.credentials,
        client_secret=route.client_secret,
        forwards=route.forward_credentials,
        needs_bearer=[
            key for key in ("claims", "audience", "token_format", "mcp") if getattr(route, key)
        ],
    )
    if route.auth == "none":
        for key in ("scopes", "claims", "clients", "audience", "token_format"):
            if getattr(route, key):
                yield (*where, key), "has no effect with auth none, expected nothing here"


def _reserved_paths(provider: ProviderConfig | None) -> set[str]:
    """Return the paths that the provider serves, if its section is sound."""
    if provider is None:
        return set()
    paths = {getattr(provider, key) for key in PROVIDER_PATHS} | {JWKS_PATH}
    if "authorization_code" not in provider.grant_types:
        paths.discard(provider.authorize_path)
    return paths


def _not_canonical(path: str) -> str:
    if "%" in path:
        return "must be written without percent-escapes"
    if "{" in path:
        above = path.partition("{")[0].rpartition("/")[0] or "/"
        return (
            f"has no parameters: a path matches all below it by itself, write {above!r}, or `regex`"
        )
    return (
        "must be canonical: no empty or dot segment, query, fragment, backslash, `;` or "
        "character outside of ASCII"
    )


def _check_names(routes: dict[int, RouteConfig]) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for at, route in routes.items():
        if route.name in seen:
            yield ("routes", at, "name"), f"is the name of routes[{seen[route.name]}] too"
        seen.setdefault(route.name, at)


def _check_ties(routes: dict[int, RouteConfig]) -> Iterator[Finding]:
    """Two routes that would take the same request with the same right."""
    seen: dict[tuple[object, ...], int] = {}
    for at, route in routes.items():
        match = route.match
        tied: set[int] = set()
        for host in match.hosts or [""]:
            for method in match.methods or [""]:
                key = (host, method, match_key(match))
                if seen.setdefault(key, at) != at:
                    tied.add(seen[key])
        for other in sorted(tied):
            yield (
                ("routes", at, "match"),
                f"ties with routes[{other}] ({routes[other].name!r}): same host, path, method and "
                "conditions, expected them to differ in one of these",
            )
