"""A route of the file: which requests it takes, what becomes of them, who may send them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.route_traffic import (
    Addresses,
    Compress,
    Cors,
    Limits,
    Maintenance,
    Mirror,
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
    Scope,
    Section,
    SplitBy,
)
from gateway.units import Int, PositiveDuration


class RateLimit(Section):
    """How many requests may be made."""

    requests: Int = Field(ge=1, description="Requests allowed in the time below, on average.")
    per: PositiveDuration = Field(1.0, description="The time they are counted in.")
    burst: Int | None = Field(
        None, ge=1, description="Requests allowed at once; as many as `requests` if not given."
    )


class RouteRateLimit(RateLimit):
    """How many requests may be made to a route."""

    by: Literal["client", "route"] = Field(
        "client",
        description="Counted for each client (each address, without a token), or all together.",
    )


class HeaderMatch(Section):
    """What a header field must be; with neither `exact` nor `regex`, it must be there."""

    name: HeaderName = Field(description="Name of the field.")
    exact: str | None = Field(None, description="Its value, exactly.")
    regex: Regex | None = Field(None, description="A pattern that the whole value is like.")
    present: Bool = Field(True, description="`false`: there must be no such field.")


class QueryMatch(Section):
    """What a parameter of the query must be; with neither `exact` nor `regex`, it must be there."""

    name: str = Field(min_length=1, description="Name of the parameter.")
    exact: str | None = Field(None, description="Its value, exactly, percent-decoded.")
    regex: Regex | None = Field(None, description="A pattern that the whole value is like.")
    present: Bool = Field(True, description="`false`: there must be no such parameter.")


class Match(Section):
    """Which requests a route takes."""

    path: Path = Field(description="Prefix on segment borders, in canonical form.")
    exact: Bool = Field(False, description="Match the path only as it stands.")
    regex: Regex | None = Field(
        None, description="A pattern (RE2) that the whole canonical path is like, besides."
    )
    hosts: list[Host] = Field([], description="Hosts, `*.` for all below one; empty: any.")
    methods: list[Method] = Field([], description="Methods; empty: any.")
    headers: list[HeaderMatch] = Field([], description="Header fields that it must have.")
    query: list[QueryMatch] = Field([], description="Query parameters that it must have.")


class RegexRewrite(Section):
    """Parts of the path that are replaced."""

    pattern: Regex = Field(description="What is replaced, wherever it stands in the path (RE2).")
    substitution: str = Field(
        description="What stands there instead; `\\1` is the first group of the pattern."
    )


class Rewrite(Section):
    """How the path and the host change on their way."""

    strip_prefix: Path | None = Field(None, description="Cut off the front of the path.")
    add_prefix: Path | None = Field(None, description="Put in front of the path, after that.")
    regex: RegexRewrite | None = Field(None, description="Replace parts of the path, after that.")
    host: RewrittenHost = Field(
        "preserve",
        description="The Host that the upstream gets: `preserve` the client's, `upstream` for the "
        "target's own, or a name.",
    )


class RequestHeaders(Section):
    """How the fields of a request change on their way."""

    set: dict[HeaderName, RequestValue] = Field(
        {}, repr=False, description="Fields in place of the client's of these names."
    )
    add: dict[HeaderName, RequestValue] = Field(
        {}, repr=False, description="Fields beside the client's of these names."
    )
    remove: list[HeaderName] = Field([], description="Fields of the client that end here.")


class ResponseHeaders(Section):
    """How the fields of a response change on their way."""

    set: dict[HeaderName, ResponseValue] = Field(
        {}, description="Fields in place of the upstream's of these names."
    )
    add: dict[HeaderName, ResponseValue] = Field(
        {}, description="Fields beside the upstream's of these names."
    )
    remove: list[HeaderName] = Field([], description="Fields of the upstream that end here.")


class Redirect(Section):
    """A response that leads elsewhere."""

    to: RedirectTo = Field(description="Where to: a URL or a path, with variables.")
    status: Literal[301, 302, 303, 307, 308] = Field(
        308, description="301, 302 and 303 let clients turn a POST into a GET, 307 and 308 do not."
    )


class Respond(Section):
    """A response that the gateway makes itself."""

    status: Int = Field(200, ge=200, le=599, description="Its status.")
    body: str = Field("", description="Its body.")
    headers: dict[HeaderName, ResponseValue] = Field(
        {}, description="Its fields; `Content-Type` is `text/plain; charset=utf-8` unless given."
    )


class Route(Section):
    """Where requests go, and who may send them."""

    name: Name = Field(description="Name in metrics and logs.")
    match: Match = Field(description="Which requests it takes.")
    upstream: str | None = Field(
        None,
        description="Name of the upstream they go to; left out where the gateway answers itself, "
        "or only decides (`authz`).",
    )
    split: list[SplitShare] = Field(
        [], description="Upstreams that share the requests, in place of one."
    )
    split_by: SplitBy = Field(
        "random",
        description="What a request's share depends on: chance, or the same for a `client`, a "
        "`source` address or the value of a field (`header:NAME`).",
    )
    mirror: Mirror | None = Field(None, description="Send a copy of requests elsewhere, too.")
    redirect: Redirect | None = Field(
        None, description="Answer with a redirect, in place of an upstream."
    )
    respond: Respond | None = Field(
        None, description="Answer with a fixed response, in place of an upstream."
    )
    auth: Literal["required", "none", "optional"] = Field(
        "required", description="Whether a token is needed, ignored, or checked if given."
    )
    scopes: list[Scope] = Field([], description="Scopes that the token must have, all of them.")
    clients: list[str] = Field([], description="If given, only tokens of these clients pass.")
    audience: list[Audience] = Field(
        [],
        description="If given, only tokens for one of these, or for the URL of this route, pass.",
    )
    token_format: Literal["opaque", "jwt"] | None = Field(
        None, description="What tokens for this route look like, unless the client says."
    )
    rewrite: Rewrite = Field(
        default_factory=Rewrite, description="How the path and the host change."
    )
    request_headers: RequestHeaders | None = Field(
        None, description="How the fields of requests change."
    )
    response_headers: ResponseHeaders | None = Field(
        None, description="How the fields of responses change, whoever makes them."
    )
    ip: Addresses | None = Field(None, description="Where clients may call from, else 403.")
    https_only: Bool = Field(
        False, description="Answer what came by plain HTTP with a redirect (308) to https."
    )
    cors: Cors | None = Field(None, description="Which pages of other origins may call.")
    maintenance: Maintenance | None = Field(None, description="Closed for now, 503.")
    limits: Limits | None = Field(None, description="How large requests may be.")
    compress: Compress | None = Field(
        None, description="Which answers are compressed; none if not given."
    )
    rate_limit: RouteRateLimit | None = Field(
        None, description="How many requests may be made to this route, else 429."
    )
    forward_token: Bool = Field(
        False, description="Pass the Authorization header on to the upstream."
    )
