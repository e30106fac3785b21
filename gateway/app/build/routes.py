"""From a route of the configuration to the parts that it is compiled to, and to a row to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.addresses import Networks
from gateway.app.build.claims import describe_claims
from gateway.config import Config
from gateway.config.credentials import ClientSecretConfig
from gateway.config.route_traffic import Maintenance
from gateway.config.routes import (
    HeaderMatch,
    QueryMatch,
    RequestHeaders,
    ResponseHeaders,
    RouteConfig,
)
from gateway.http.content_coding import Compression
from gateway.http.fields import cgi_name
from gateway.patterns import compile_pattern
from gateway.proxy.conditions import (
    Condition,
    HeaderCondition,
    PathCondition,
    QueryCondition,
    Value,
)
from gateway.proxy.cors import Cors
from gateway.proxy.direct_response import FixedResponse, Redirect, Responder
from gateway.proxy.header_rules import (
    NO_CHANGES,
    HeaderModifier,
    LocationRewrite,
    RequestHeadModifier,
    Rewrite,
)
from gateway.proxy.mcp import METHODS as MCP_METHODS
from gateway.proxy.mcp import McpFilter, McpRules, ToolRules
from gateway.proxy.mirror import Mirror
from gateway.proxy.request_filters import (
    AddressFilter,
    CorsFilter,
    HttpsRedirectFilter,
    MaintenanceFilter,
    RequestFilter,
)
from gateway.proxy.response_filter import ResponseRules
from gateway.proxy.route_credentials import RouteCredentials, SecretSettings
from gateway.proxy.traffic_split import Split, by_client, by_header, by_source
from gateway.templates import (
    IN_REDIRECTS,
    IN_REQUEST_HEADERS,
    IN_RESPONSE_HEADERS,
    Template,
    parse_template,
)
from gateway.upstream.upstream import Upstream

COMMON_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
PREFLIGHT_S = 600.0
PLAIN_TEXT = "text/plain; charset=utf-8"


def build_conditions(route: RouteConfig) -> tuple[Condition, ...]:
    """Build the conditions of a route beside host, path and method."""
    match = route.match
    conditions: list[Condition] = []
    if match.regex is not None:
        conditions.append(PathCondition(compile_pattern(match.regex)))
    conditions += (HeaderCondition(one.name, _value(one)) for one in match.headers)
    conditions += (QueryCondition(one.name, _value(one)) for one in match.query)
    return tuple(conditions)


def describe_conditions(route: RouteConfig) -> list[str]:
    """Describe the conditions of a route."""
    return [str(condition) for condition in build_conditions(route)]


def describe_destination(route: RouteConfig) -> str:
    """Describe the destination of requests that don't go to one upstream."""
    if route.redirect is not None:
        return f"redirect {route.redirect.status}"
    if route.respond is not None:
        return f"respond {route.respond.status}"
    return " ".join(f"{share.upstream}:{share.weight}" for share in route.split)


def _value(requested: HeaderMatch | QueryMatch) -> Value:
    return Value(
        exact=requested.exact,
        pattern=None if requested.regex is None else compile_pattern(requested.regex),
        is_absent=not requested.present,
    )


def build_filters(
    route: RouteConfig, cors: Cors | None, maintenance: Maintenance | None = None
) -> tuple[RequestFilter, ...]:
    """Build the filters that run before authentication, in order. `maintenance` is that of all
    routes."""
    filters: list[RequestFilter] = []
    if route.ip is not None:
        filters.append(AddressFilter(Networks.parse(route.ip.allow), Networks.parse(route.ip.deny)))
    if route.https_only:
        filters.append(HttpsRedirectFilter())
    if cors is not None:
        filters.append(CorsFilter(cors))
    if route.mcp is not None:
        origins = build_origins(route.mcp.origins)
        filters.append(
            McpFilter(
                (cors, origins) if cors is not None else (origins,),
                route.mcp.versions,
                has_tools=route.mcp.tools is not None,
            )
        )
    filters += (
        MaintenanceFilter(retry_after_s=one.retry_after, allow=Networks.parse(one.allow))
        for one in (maintenance, route.maintenance)
        if one is not None and one.enabled
    )
    return tuple(filters)


def build_response_rules(
    route: RouteConfig, cors: Cors | None, upstreams: Mapping[str, Upstream]
) -> ResponseRules | None:
    """Build the rules for responses; None where they pass unchanged."""
    passes, location = route.pass_host_headers, build_location(route, upstreams)
    is_changed = route.response_headers or route.compress is not None or passes
    if not is_changed and cors is None and location is None:
        return None
    headers = route.response_headers
    changes = NO_CHANGES if headers is None else _field_changes(headers)
    return ResponseRules(changes, cors, _compression(route), passes, location)


def build_location(route: RouteConfig, upstreams: Mapping[str, Upstream]) -> LocationRewrite | None:
    """Build what undoes a rewrite in responses; None where nothing does."""
    rewrite = route.rewrite
    if not rewrite.location:
        return None
    named = [route.upstream] if route.upstream else [share.upstream for share in route.split]
    authorities = {
        target.authority.decode("ascii").lower()
        for name in named
        for target in upstreams[name].targets
    }
    if rewrite.host not in {"preserve", "upstream"}:
        authorities.add(rewrite.host.lower())
    return LocationRewrite(
        strip_prefix=rewrite.add_prefix or "",
        add_prefix=rewrite.strip_prefix or "",
        authorities=frozenset(authorities),
    )


def build_cors(route: RouteConfig) -> Cors | None:
    """The rules for pages of other origins; None where there are none."""
    cors = route.cors
    if cors is None:
        return _mcp_cors(route)
    return replace(
        build_origins(cors.origins),
        patterns=tuple(map(compile_pattern, cors.origin_regexes)),
        methods=frozenset(cors.methods or route.match.methods or COMMON_METHODS) - {"OPTIONS"},
        headers=", ".join(cors.headers),
        exposed=", ".join(cors.expose_headers),
        credentials=cors.credentials,
        max_age_s=cors.max_age,
    )


def build_origins(origins: Sequence[str]) -> Cors:
    """Compile a list of origins."""
    wild = [origin.partition("*") for origin in origins if "://*." in origin]
    return Cors(
        origins=frozenset(origin for origin in origins if "*" not in origin),
        below=tuple((scheme, suffix) for scheme, _, suffix in wild),
        takes_any_origin="*" in origins,
    )


def _mcp_cors(route: RouteConfig) -> Cors | None:
    """The permissions that MCP clients in a page need."""
    if route.mcp is None or not route.mcp.origins:
        return None
    return replace(
        build_origins(route.mcp.origins),
        methods=frozenset(MCP_METHODS),
        # `*` covers Mcp-Param-* and what later revisions add, but not Authorization.
        headers="*, Authorization",
        exposed="Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After",
        max_age_s=PREFLIGHT_S,
    )


def build_mcp(route: RouteConfig, counts: dict[tuple[str, str, str], int]) -> McpRules | None:
    """Build the rules for what is called; None where the upstream is no MCP server."""
    mcp = route.mcp
    if mcp is None:
        return None
    tools = None if mcp.tools is None else ToolRules(mcp.tools)
    return McpRules(route.name, tools, max_body_bytes=mcp.max_body, counts=counts)


def build_split(
    route: RouteConfig, upstreams: Mapping[str, Upstream], counts: dict[tuple[str, str], int]
) -> Split | None:
    """Build the traffic split of a route; None where there is one upstream."""
    if not route.split:
        return None
    kind, _, name = route.split_by.partition(":")
    key = {"client": by_client, "source": by_source, "random": None}.get(kind, by_header(name))
    shares = [(upstreams[share.upstream], share.weight) for share in route.split]
    return Split(route.name, shares, key=key, counts=counts)


def build_mirror(
    route: RouteConfig, upstreams: Mapping[str, Upstream], counts: dict[tuple[str, str], int]
) -> Mirror | None:
    """Build the mirror of a route; None where there is none."""
    mirror = route.mirror
    if mirror is None:
        return None
    return Mirror(
        route.name,
        upstreams[mirror.upstream],
        percent=mirror.percent,
        max_in_flight=mirror.max_in_flight,
        counts=counts,
    )


def _compression(route: RouteConfig) -> Compression | None:
    compress = route.compress
    if compress is None:
        return None
    return Compression(
        types=frozenset(compress.types),
        codings=tuple(compress.encodings),
        min_bytes=compress.min_size,
    )


def build_credentials(route: RouteConfig, key_header: str) -> RouteCredentials | None:
    """Build what clients may authenticate by; None for bearer tokens alone."""
    if route.credentials == ["bearer"]:
        return None
    secret = route.client_secret or ClientSecretConfig()
    return RouteCredentials(
        takes_bearer="bearer" in route.credentials,
        key_header=key_header.lower().encode() if "api_key" in route.credentials else b"",
        secret=SecretSettings(frozenset(secret.sent_in), secret.id_name, secret.secret_name)
        if "client_secret" in route.credentials
        else None,
    )


def credential_headers(config: Config) -> set[bytes]:
    """Return the fields in which clients send credentials, in lower case."""
    found = {config.provider.api_keys.header.lower().encode()}
    for route in config.routes:
        credentials = build_credentials(route, "")
        if credentials is not None and credentials.secret is not None:
            found.add(credentials.secret.secret_field)
    return found


def _hidden_fields(route: RouteConfig, key_header: str) -> frozenset[bytes]:
    """The fields with credentials, which are not for the upstream."""
    credentials = build_credentials(route, key_header)
    if credentials is None or route.forward_credentials:
        return frozenset()
    names = {credentials.key_header}
    if credentials.secret is not None:
        names |= {credentials.secret.id_field, credentials.secret.secret_field}
    # Also by the spelling that CGI programs take them for.
    return frozenset(names | set(map(cgi_name, names))) - {b""}


def build_changes(
    route: RouteConfig, key_header: str = "", claim_fields: frozenset[bytes] = frozenset()
) -> RequestHeadModifier | None:
    """How request heads change; None where they don't. `claim_fields` are never the client's."""
    host = route.rewrite.host
    named = b"" if host in {"preserve", "upstream"} else host.encode("ascii")
    rewrite, headers = build_rewrite(route), route.request_headers
    hidden = _hidden_fields(route, key_header) | claim_fields
    if rewrite is None and host == "preserve" and headers is None and not hidden:
        return None
    fields = NO_CHANGES if headers is None else _field_changes(headers)
    return RequestHeadModifier(
        rewrite=rewrite,
        host=named,
        uses_target_host=host == "upstream",
        fields=replace(fields, removed=fields.removed | hidden),
    )


def build_rewrite(route: RouteConfig) -> Rewrite | None:
    """How the path changes; None where it does not."""
    rewrite = route.rewrite
    if rewrite.strip_prefix is None and rewrite.add_prefix is None and rewrite.regex is None:
        return None
    return Rewrite(
        strip_prefix=rewrite.strip_prefix or "",
        add_prefix=rewrite.add_prefix or "",
        pattern=None if rewrite.regex is None else compile_pattern(rewrite.regex.pattern),
        substitution="" if rewrite.regex is None else rewrite.regex.substitution,
    )


def build_responder(route: RouteConfig) -> Responder | None:
    """Build the direct response of a route, if there is one."""
    if route.redirect is not None:
        to = parse_template(route.redirect.to, IN_REDIRECTS)
        return Redirect(route.redirect.status, to, build_rewrite(route))
    respond = route.respond
    if respond is None:
        return None
    body = respond.body.encode()
    headers = dict(respond.headers)
    if body and "content-type" not in {name.lower() for name in headers}:
        headers = {"Content-Type": PLAIN_TEXT} | headers
    return FixedResponse(respond.status, body, _templates(headers, IN_RESPONSE_HEADERS))


def _field_changes(changes: RequestHeaders | ResponseHeaders) -> HeaderModifier:
    is_request = isinstance(changes, RequestHeaders)
    allowed = IN_REQUEST_HEADERS if is_request else IN_RESPONSE_HEADERS
    return HeaderModifier(
        removed=frozenset(name.lower().encode() for name in (*changes.remove, *changes.set)),
        fields=(*_templates(changes.set, allowed), *_templates(changes.add, allowed)),
    )


def _templates(
    fields: Mapping[str, str], allowed: frozenset[str]
) -> tuple[tuple[str, Template], ...]:
    return tuple((name, parse_template(value, allowed)) for name, value in fields.items())


def list_routes(config: Config) -> list[dict[str, Any]]:
    """A row for each route and host, in the order in which the router prefers them."""
    rows = [
        {
            "host": host,
            "path": route.match.path,
            "exact": route.match.exact,
            "methods": list(route.match.methods),
            "name": route.name,
            "auth": route.auth,
            "credentials": list(route.credentials),
            "scopes": list(route.all_scopes),
            "any_scopes": list(route.any_scopes),
            "claims": describe_claims(route),
            "clients": list(route.clients),
            "upstream": route.upstream or describe_destination(route),
            "conditions": describe_conditions(route),
            "strip_prefix": route.rewrite.strip_prefix,
            "forward_token": route.forward_token,
        }
        for route in config.routes
        for host in (route.match.hosts or [""])
    ]
    return sorted(rows, key=_precedence)


def _precedence(row: dict[str, Any]) -> tuple[object, ...]:
    host = row["host"]
    host_rank = 2 if not host else 1 if host.startswith("*.") else 0
    return (
        host_rank, -len(host), host, not row["exact"], -len(row["path"]), row["path"],
        not row["methods"], -len(row["conditions"]),
    )  # fmt: skip
