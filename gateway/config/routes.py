"""A route of the file: which requests it takes, what becomes of them, who may send them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.claims import RouteClaims, RouteScopes
from gateway.config.credentials import ClientSecretConfig, Credential
from gateway.config.mcp import McpConfig
from gateway.config.route_traffic import (
    Addresses,
    Compress,
    CorsConfig,
    Limits,
    Maintenance,
    MirrorConfig,
    SplitShare,
)
from gateway.config.scalars import (
    Audience,
    Bool,
    HeaderName,
    Host,
    Method,
    Name,
    Path,
    RedirectTo,
    Regex,
    RequestValue,
    ResponseValue,
    RewrittenHost,
    Section,
    SharedStoreUrl,
    SplitBy,
    Text,
    UpgradeName,
)
from gateway.units import Int, PositiveDuration


class RateLimitConfig(Section):
    """How many requests may be made."""

    requests: Int = Field(
        ge=1, description="Average number of requests allowed in each period `per`; more get 429."
    )
    per: PositiveDuration = Field(1.0, description="Period of the limit.")
    burst: Int | None = Field(
        None, ge=1, description="Requests allowed in a burst; default: as `requests`."
    )


class ClientsRateLimit(RateLimitConfig):
    """How many requests each client may make, and where replicas count together."""

    requests: Int | None = Field(  # type: ignore[assignment]
        None,
        ge=1,
        description=(
            "Average number of requests allowed to each client in each period `per`; more get 429."
        ),
    )
    store: SharedStoreUrl | None = Field(
        None,
        repr=False,  # it may hold a password
        description=(
            "URL of the Redis or PostgreSQL in which all replicas count together, these limits and "
            "those of routes; default: `store`, where it is a Redis, otherwise each replica counts "
            "by itself."
        ),
    )


class RouteRateLimit(RateLimitConfig):
    """How many requests may be made to a route."""

    by: Literal["client", "route"] = Field(
        "client",
        description=(
            "Whether requests are counted for each client (each address, without a token), or "
            "together for the route."
        ),
    )


class HeaderMatch(Section):
    """A condition on a header field; with neither `exact` nor `regex`, it must be present."""

    name: HeaderName = Field(description="Name of the header field.")
    exact: str | None = Field(None, description="Exact value of the header field.")
    regex: Regex | None = Field(None, description="Pattern (RE2) that the whole value must match.")
    present: Bool = Field(True, description="`false`: there must be no header field of this name.")


class QueryMatch(Section):
    """A condition on a query parameter; with neither `exact` nor `regex`, it must be present."""

    name: str = Field(min_length=1, description="Name of the query parameter.")
    exact: str | None = Field(None, description="Exact value of the parameter, percent-decoded.")
    regex: Regex | None = Field(None, description="Pattern (RE2) that the whole value must match.")
    present: Bool = Field(True, description="`false`: there must be no parameter of this name.")


class Match(Section):
    """Which requests a route takes."""

    path: Path = Field(description="Path prefix of whole segments, in canonical form.")
    exact: Bool = Field(False, description="Whether `path` must be the whole path.")
    regex: Regex | None = Field(
        None, description="Pattern (RE2) that the whole canonical path must match, too."
    )
    hosts: list[Host] = Field([], description="Host names, `*.` for all below one; empty for any.")
    methods: list[Method] = Field([], description="Methods to match; empty for any.")
    headers: list[HeaderMatch] = Field([], description="Header fields that it must have.")
    query: list[QueryMatch] = Field([], description="Query parameters that it must have.")


class RegexRewrite(Section):
    """Parts of the path that are replaced."""

    pattern: Regex = Field(description="Pattern (RE2) to replace, wherever it matches in the path.")
    substitution: str = Field(description="Replacement; `\\1` is the first group of the pattern.")


class RewriteConfig(Section):
    """How the path and the host change on their way."""

    strip_prefix: Path | None = Field(None, description="Prefix to remove from the path.")
    add_prefix: Path | None = Field(
        None, description="Prefix to add to the path, after `strip_prefix`."
    )
    regex: RegexRewrite | None = Field(None, description="Replace parts of the path, after that.")
    host: RewrittenHost = Field(
        "preserve",
        description=(
            "`Host` that the upstream receives: the client's (`preserve`), the target's own "
            "(`upstream`), or a name."
        ),
    )
    location: Bool = Field(
        False,
        description=(
            "Whether `strip_prefix` and `add_prefix` are undone in `Location` and "
            "`Content-Location` of responses that lead to the upstream itself. Not with `regex`."
        ),
    )


class RequestHeaders(Section):
    """How the fields of a request change on their way."""

    set: dict[HeaderName, RequestValue] = Field(
        {},
        repr=False,
        description="Request header fields that replace the client's of these names.",
    )
    add: dict[HeaderName, RequestValue] = Field(
        {}, repr=False, description="Request header fields to add to the client's."
    )
    remove: list[HeaderName] = Field(
        [], description="Request header fields that are not forwarded."
    )


class ResponseHeaders(Section):
    """How the fields of a response change on their way."""

    set: dict[HeaderName, ResponseValue] = Field(
        {}, description="Response header fields that replace the upstream's of these names."
    )
    add: dict[HeaderName, ResponseValue] = Field(
        {}, description="Response header fields to add to the upstream's."
    )
    remove: list[HeaderName] = Field(
        [], description="Response header fields that are not sent to the client."
    )


class RedirectConfig(Section):
    """A response that leads elsewhere."""

    to: RedirectTo = Field(description="Target of the redirect: a URL or a path, with variables.")
    status: Literal[301, 302, 303, 307, 308] = Field(
        308,
        description=(
            "Status of the redirect; 301, 302 and 303 let clients turn a POST into a GET, 307 "
            "and 308 do not."
        ),
    )


class Respond(Section):
    """A response that the gateway makes itself."""

    status: Int = Field(200, ge=200, le=599, description="Status of the direct response.")
    body: str = Field("", description="Body of the direct response.")
    headers: dict[HeaderName, ResponseValue] = Field(
        {},
        description=(
            "Header fields of the direct response; `Content-Type` is `text/plain; "
            "charset=utf-8` unless given."
        ),
    )


class RouteConfig(Section):
    """A route: the requests that it matches, and what happens to them."""

    name: Name = Field(description="Name of the route in metrics and logs.")
    match: Match = Field(description="Which requests it takes.")
    upstream: str | None = Field(
        None,
        description=(
            "Upstream that receives the requests; left out for `redirect`, `respond`, "
            "`split`, and routes that are for external authorization only."
        ),
    )
    split: list[SplitShare] = Field(
        [], description="Upstreams that share the requests, in place of one."
    )
    split_by: SplitBy = Field(
        "random",
        description=(
            "How requests are assigned: `random`, or always alike for a `client`, a `source` "
            "address, or the value of a header field (`header:NAME`)."
        ),
    )
    mirror: MirrorConfig | None = Field(None, description="Send a copy of requests elsewhere, too.")
    redirect: RedirectConfig | None = Field(
        None, description="Respond with a redirect instead of forwarding to an upstream."
    )
    respond: Respond | None = Field(
        None, description="Respond with a fixed response instead of forwarding to an upstream."
    )
    auth: Literal["required", "none", "optional"] = Field(
        "required",
        description=(
            "Whether a token is required, ignored (`none`), or checked if there is one "
            "(`optional`)."
        ),
    )
    credentials: list[Credential] = Field(
        ["bearer"],
        min_length=1,
        description=(
            "What clients may authenticate by: bearer tokens, API keys (`api_key`), or their id "
            "and secret on each request (`client_secret`). Of several, one is enough."
        ),
    )
    client_secret: ClientSecretConfig | None = Field(
        None,
        description=(
            "Where requests have the id and secret, if `credentials` list `client_secret`; "
            "default: in the header fields `client_id` and `client_secret`."
        ),
    )
    forward_credentials: Bool = Field(
        False,
        description=(
            "Whether to forward the header fields with the API key, or with the client's id and "
            "secret, to the upstream. `Authorization` depends on `forward_token`; parameters of "
            "the query are never forwarded."
        ),
    )
    scopes: RouteScopes = Field(
        [],
        description=(
            "Scopes that the token must have; all are required. `{any: [...]}` for one of several."
        ),
    )
    claims: RouteClaims = Field(
        {},
        max_length=64,
        description=(
            "Claims that the token must have, by name or path (`realm_access.roles`), with the "
            "values of which one is enough; `{all: [...]}` for several at once."
        ),
    )
    clients: list[Text] = Field(
        [], description="If given, only tokens of these clients are accepted."
    )
    audience: list[Audience] = Field(
        [],
        description=(
            "If given, only tokens for one of these, or for the URL of this route, are accepted."
        ),
    )
    token_format: Literal["opaque", "jwt"] | None = Field(
        None, description="Format of tokens for this route, unless the client says otherwise."
    )
    rewrite: RewriteConfig = Field(
        default_factory=RewriteConfig, description="How the path and the host change."
    )
    request_headers: RequestHeaders | None = Field(
        None, description="How the fields of requests change."
    )
    response_headers: ResponseHeaders | None = Field(
        None,
        description="Changes to the header fields of responses, generated ones included.",
    )
    ip: Addresses | None = Field(None, description="Where clients may call from, else 403.")
    https_only: Bool = Field(False, description="Whether to redirect plain HTTP to https (308).")
    cors: CorsConfig | None = Field(None, description="Which pages of other origins may call.")
    maintenance: Maintenance | None = Field(None, description="Closed for now, 503.")
    limits: Limits | None = Field(None, description="How large requests may be.")
    compress: Compress | None = Field(
        None, description="Compression of responses; off if not given."
    )
    rate_limit: RouteRateLimit | None = Field(
        None, description="How many requests may be made to this route, else 429."
    )
    pass_host_headers: Bool = Field(
        False,
        description=(
            "Whether `Clear-Site-Data` and `Service-Worker-Allowed` of the upstream reach "
            "browsers. They act on all that is on the host, beyond the route."
        ),
    )
    close_websockets_with_token: Bool = Field(
        False,
        description=(
            "Whether a WebSocket is closed (code 4401) when its token expires or is revoked, "
            "within a second and the time of a revocation; else it lives on."
        ),
    )
    upgrades: list[UpgradeName] = Field(
        [],
        description=(
            "Protocols besides WebSocket that requests without a body may switch to (`Upgrade`), "
            "such as `SPDY/3.1` or `tcp`. They are tunnelled unread."
        ),
    )
    allow_encoded_slashes: Bool = Field(
        False,
        description=(
            "Whether paths with `%2F` and `%5C` are forwarded, as they are; else 400. One that "
            "could mean another route if it is decoded is rejected nevertheless."
        ),
    )
    merge_slashes: Bool = Field(
        True,
        description=(
            "Whether empty segments (`//`) are left out of the path that the upstream gets. With "
            "`false` those behind `match.path` stay, as object keys need; routes, scopes and logs "
            "see the merged path all the same. Not with `rewrite.regex`."
        ),
    )
    mcp: McpConfig | None = Field(
        None, description="The upstream is an MCP server: which tools may be called, and by whom."
    )
    forward_token: Bool = Field(
        False, description="Whether to forward the `Authorization` field to the upstream."
    )

    @property
    def all_scopes(self) -> list[str]:
        """The scopes that are all required."""
        return self.scopes if isinstance(self.scopes, list) else self.scopes.all

    @property
    def any_scopes(self) -> list[str]:
        """The scopes of which one is required."""
        return [] if isinstance(self.scopes, list) else self.scopes.any
