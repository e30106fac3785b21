"""External authorization: another proxy sends a check for each request, and gets yes or no.

    the asking proxy is known -> what it asks about is read, in its dialect
                              -> route, bearer, rate limits: as on the request path
                              -> 200 with the caller's identity, or the refusal

The request asked about is decided by the same code, cache and routes as one that is
proxied (`gateway.proxy.stages`). Two things are different. Where the request was going comes from
header fields, which are believed only from `authz.trusted_proxies`, and only those of the
one dialect that is configured: a field that a client could have written decides nothing
(GHSA-7x63-xv5r-3p2x). And it is the other proxy that forwards, the path as it came, so a
path that is not canonical as it stands is refused: its next reader may see another one.

nginx' ngx_http_auth_request_module, Traefik's ForwardAuth, Caddy's forward_auth, Envoy's
ext_authz (HTTP service).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from gateway.downstream.request import Request
from gateway.http.errors import BadRequestError, NoRouteError, ProblemError
from gateway.http.fields import IDENTITY, METHOD_OVERRIDES, TOKEN, cgi_name
from gateway.http.request_head import RequestLine, routing_host
from gateway.http.target import parse_target
from gateway.metrics import Histogram
from gateway.oauth.authentication.cached_secrets import CachedClientSecrets
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.context import RequestContext
from gateway.proxy.credentials import build_authentication
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.pipeline import Pipeline
from gateway.proxy.request_log import RequestLog
from gateway.proxy.router import Router
from gateway.proxy.stages import LimitStage, RouteStage, filter_request
from gateway.rate_limit import LocalRateLimits, RateLimits, RateRules
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.upstream import Upstream

Dialect = Literal["nginx", "ingress_nginx", "forward_auth", "envoy"]

NO_IDENTITY = b"X-Client-Id: \r\nX-Client-Name: \r\nX-Token-Scopes: \r\n"
NO_SUBJECT = b"X-Token-Subject: \r\n"
"""Sent even where there is none: a proxy that copies a field must not copy the client's."""

MULTIPLE_CHOICES = 300

_METHOD = re.compile(TOKEN)


class UntrustedProxyError(ProblemError):
    """The caller is not in `authz.trusted_proxies`."""

    status = 403


class UndecidableError(ProblemError):
    """The request to authorize is malformed or ambiguous."""

    status = 400


def inspect_fields(context: RequestContext) -> None:
    """Check what a request calls of an MCP server, by its header fields: there is no body."""
    route = context.route
    assert route is not None
    if route.mcp is not None:
        route.mcp.check_fields(context.request, context.token, route.access.scopes)


class NoUpstream(Upstream):
    """Of a route that is only for decisions: nothing is forwarded to it."""

    def __init__(self) -> None:
        super().__init__("_none", (), durations=Histogram())

    def choose(self, key: str) -> Endpoint:
        """Raises `NoRouteError`."""
        raise NoRouteError(
            "no_upstream", "This route is only for external authorization; it is not served here."
        )


class Checked(NamedTuple):
    """A request that another proxy asks about."""

    method: bytes
    target: str
    host: bytes


class Decisions:
    """The first and the last stages of authorization checks."""

    def __init__(
        self, dialect: Dialect, path: str, *, claim_fields: frozenset[bytes] = frozenset()
    ) -> None:
        """`claim_fields` are the request header fields that routes fill with claims, in lower
        case."""
        self._path = path
        self._read = _READERS[dialect]
        self._claim_fields = tuple(sorted(name.decode("ascii") for name in claim_fields))
        self._claim_names = claim_fields
        self._looks = frozenset(map(cgi_name, claim_fields))

    def understand(self, context: RequestContext) -> None:
        """Put the request that is asked about in the place of the one that asks."""
        request = context.request
        if request.error is not None:
            raise request.error
        if not request.peer.is_trusted:
            raise UntrustedProxyError(
                "untrusted_proxy", "This address is not allowed to send authorization checks."
            )
        checked = self._read(request, self._path)
        self._refuse_what_would_be_forwarded(request)
        context.request = _read_checked(request, checked)

    def filter_request(self, context: RequestContext) -> DirectResponse | None:
        """Apply the filters of the route. A preflight is not permitted: the other proxy would
        take any 2xx for a permission."""
        response = filter_request(context)
        if response is not None and response.status < MULTIPLE_CHOICES:
            raise UndecidableError(
                response.reason, "Preflight requests are handled by the proxy in front."
            )
        return response

    def permit(self, context: RequestContext) -> DirectResponse:
        """Permit the request, and say who sends it."""
        context.response_filter = None  # that is for the client
        identity = NO_IDENTITY if context.token is None else context.token.identity
        if b"X-Token-Subject" not in identity:
            identity += NO_SUBJECT
        lines = identity.decode("ascii").split("\r\n")[:-1]
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        return DirectResponse(200, "", (*fields, *self._claims(context)))

    def _claims(self, context: RequestContext) -> Iterator[tuple[str, str]]:
        """The fields with claims: those of all routes, as the client may have sent any of them."""
        if not self._claim_fields:
            return
        route = context.route
        assert route is not None
        filled = [] if route.changes is None else route.changes.fields.filled(context.values())
        values = {name.lower(): value for name, value in filled}
        for name in self._claim_fields:
            yield name, values.get(name, "")

    def _refuse_what_would_be_forwarded(self, request: Request) -> None:
        """Refuse fields that are dropped from what is proxied here, but which the other proxy would
        hand on. Names are compared as CGI programs take them."""
        for name in request.head.fields:
            look = cgi_name(name)
            if look in METHOD_OVERRIDES:
                raise UndecidableError("method_override", "The request names a second method.")
            if look in IDENTITY and name != look:  # the name itself is replaced by the response's
                raise _look_alike()
        for line in request.head.lines.splitlines() if self._looks else ():
            name = line.partition(b":")[0].lower()
            if cgi_name(name) in self._looks and name not in self._claim_names:
                raise _look_alike()


def build_decisions(
    *,
    dialect: Dialect,
    path: str,
    router: Router,
    validator: TokenCache,
    log: RequestLog,
    rates: RateLimits | None = None,
    rate_rules: RateRules | None = None,
    secrets: CachedClientSecrets | None = None,
    claim_fields: frozenset[bytes] = frozenset(),
) -> Pipeline:
    """The path of authorization checks: that of requests, but for its two ends."""
    pipeline = Pipeline(log)
    decisions = Decisions(dialect, path, claim_fields=claim_fields)
    tokens = build_authentication(router, validator, secrets, log.auth_decisions)
    pipeline.stages = (
        decisions.understand,
        RouteStage(router).route,
        decisions.filter_request,
        tokens.authenticate,
        tokens.authorize,
        inspect_fields,
        LimitStage(rates or RateLimits(LocalRateLimits()), rate_rules or RateRules()).limit,
        decisions.permit,
    )
    return pipeline


def _read_checked(request: Request, checked: Checked) -> Request:
    """The request that is asked about."""
    if not _METHOD.fullmatch(checked.method) or checked.method != checked.method.upper():
        raise UndecidableError(
            "asked_method",
            "The method of the original request is missing, repeated, or not in upper case.",
        )
    try:
        target = parse_target(checked.target)
        host = checked.host
        if target.authority is not None:
            host = target.authority.encode("ascii")
        name = routing_host(host) if host else ""
    except BadRequestError as error:
        # It is the client's fault, and no reason to end the connection of the proxy.
        raise UndecidableError(error.reason, error.detail) from None
    path = checked.target.partition("?")[0]
    if target.authority is not None:
        path = "/" + path.partition("://")[2].partition("/")[2]
    if path.lower() != target.path.lower():  # escapes may be written in either case
        raise UndecidableError("target_not_canonical", "The path is ambiguous.")
    line = RequestLine(
        checked.method.decode("ascii"), target, request.is_http_10, request.line.onward
    )
    return Request(line, request.head, request.peer, checked_by=request, host=(host, name))


def _look_alike() -> UndecidableError:
    return UndecidableError(
        "identity_look_alike", "A field can be taken for one that identifies the client."
    )


def _expect_path(request: Request, path: str) -> None:
    if request.target.path != path:
        raise NoRouteError("no_route", f"Authorization requests must be sent to {path}.")


def _one(request: Request, name: bytes) -> bytes:
    """A field that must be there once: two are the proxy's and the client's."""
    value = request.head.one(name)
    if not value:
        raise UndecidableError("asked_field", f"{name.decode('ascii')} is missing or repeated.")
    return value


def _read_nginx(request: Request, path: str) -> Checked:
    _expect_path(request, path)
    target = _one(request, b"x-original-uri").decode("latin-1")
    if not target.startswith("/"):
        raise UndecidableError("target_form", "X-Original-URI is not a path.")
    return Checked(_one(request, b"x-original-method"), target, request.host)


def _read_ingress_nginx(request: Request, path: str) -> Checked:
    _expect_path(request, path)
    target = _one(request, b"x-original-url").decode("latin-1")
    if "://" not in target.partition("?")[0]:
        raise UndecidableError("target_form", "X-Original-URL is not a URL.")
    return Checked(_one(request, b"x-original-method"), target, b"")


def _read_forward_auth(request: Request, path: str) -> Checked:
    _expect_path(request, path)
    target = _one(request, b"x-forwarded-uri").decode("latin-1")
    if not target.startswith("/"):
        raise UndecidableError("target_form", "X-Forwarded-Uri is not a path.")
    host = _one(request, b"x-forwarded-host")
    return Checked(_one(request, b"x-forwarded-method"), target, host)


def _read_envoy(request: Request, path: str) -> Checked:
    line = request.line
    prefix, rest = line.raw_target[: len(path)], line.raw_target[len(path) :]
    if prefix != path or not rest.startswith("/"):
        raise NoRouteError("no_route", f"Authorization requests must be sent below {path}.")
    return Checked(line.method.encode("ascii"), rest, request.host)


_READERS: dict[str, Callable[[Request, str], Checked]] = {
    "nginx": _read_nginx,
    "ingress_nginx": _read_ingress_nginx,
    "forward_auth": _read_forward_auth,
    "envoy": _read_envoy,
}
