"""Decision mode: another proxy asks whether a request may pass, and hears yes or no.

    the asking proxy is known -> what it asks about is read, in its dialect
                              -> route, bearer, rate limits: as on the request path
                              -> 200 with the caller's identity, or the refusal

The request asked about is decided by the same code, cache and routes as one that is
proxied (`Pipeline`). Two things are different. Where the request was going comes from
header fields, which are believed only from `authz.trusted_proxies`, and only those of the
one dialect that is configured: a field that a client could have written decides nothing
(GHSA-7x63-xv5r-3p2x). And it is the other proxy that forwards, the path as it came, so a
path that is not canonical as it stands is refused: its next reader may see another one.

nginx' ngx_http_auth_request_module, Traefik's ForwardAuth, Caddy's forward_auth, Envoy's
ext_authz (HTTP service).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from gateway.access_log import AccessLog
from gateway.downstream.h1_response import http_date
from gateway.downstream.request import ClientRequest
from gateway.http.errors import BadRequestError, NoRouteError, ProblemError
from gateway.http.fields import METHOD_OVERRIDES, TOKEN
from gateway.http.request_head import routing_host
from gateway.http.target import parse_target
from gateway.metrics import Histogram, Metrics
from gateway.oauth.access import CachedToken
from gateway.oauth.endpoints import ProviderEndpoints
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.pipeline import Pipeline
from gateway.proxy.request_log import RequestContext, RequestLog
from gateway.proxy.router import Route, Router
from gateway.proxy.tracing import Tracing
from gateway.rate_limit import RateLimits, RateRules
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.upstream import Upstream

Dialect = Literal["nginx", "ingress_nginx", "forward_auth", "envoy"]

NO_IDENTITY = b"X-Client-Id: \r\nX-Client-Name: \r\nX-Token-Scopes: \r\n"
NO_SUBJECT = b"X-Token-Subject: \r\n"
"""Told even where there is none: a proxy that copies a field must not copy the client's."""

MULTIPLE_CHOICES = 300

_METHOD = re.compile(TOKEN)


class UntrustedProxyError(ProblemError):
    """Whoever asks is not in `authz.trusted_proxies`."""

    status = 403


class UndecidableError(ProblemError):
    """What is asked about can't be understood, or has more than one reading."""

    status = 400


class NoUpstream(Upstream):
    """Of a route that is only for decisions: nothing is forwarded to it."""

    def __init__(self) -> None:
        super().__init__("_none", (), durations=Histogram())

    def choose(self, key: str) -> Endpoint:
        """Raises `NoRouteError`."""
        raise NoRouteError(
            "no_upstream", "This route is only for external authorization; it is not served here."
        )


class CheckedRequest(NamedTuple):
    """A request that another proxy asks about."""

    method: bytes
    target: str
    host: bytes


class DecisionLog(RequestLog):
    """Accounts for decisions: who answers is `authz`, however it turned out."""

    def __init__(
        self,
        metrics: Metrics,
        access_log: AccessLog,
        *,
        durations: Histogram,
        tracing: Tracing | None = None,
    ) -> None:
        super().__init__(metrics, access_log, tracing=tracing)
        self._durations = durations

    def finish(self, context: RequestContext) -> None:
        """Account for a decision."""
        context.source = "authz"
        self._durations.observe(self.clock() - context.started)
        super().finish(context)


class Decisions(Pipeline):
    """Answers the questions of other proxies."""

    def __init__(
        self,
        *,
        dialect: Dialect,
        path: str,
        router: Router,
        validator: TokenCache,
        endpoints: ProviderEndpoints,
        request_log: DecisionLog,
        rates: RateLimits | None = None,
        rate_rules: RateRules | None = None,
    ) -> None:
        super().__init__(
            router=router, validator=validator, endpoints=endpoints, request_log=request_log,
            rates=rates, rate_rules=rate_rules,
        )  # fmt: skip
        self._path = path
        self._read = _READERS[dialect]

    def _serve(self, request: ClientRequest) -> None:
        if request.error is not None:
            raise request.error
        if not request.connection.is_trusted:
            raise UntrustedProxyError(
                "untrusted_proxy", "This address is not allowed to send authorization checks."
            )
        _understand(request, self._read(request, self._path))
        self._authorize(request)

    def _respond(self, request: ClientRequest, response: DirectResponse) -> None:
        """A gate has answered: not with a yes, as the other proxy would take any 2xx for one."""
        if response.status < MULTIPLE_CHOICES:
            raise UndecidableError(
                response.reason, "Preflight requests are handled by the proxy in front."
            )
        super()._respond(request, response)

    def _send(self, request: ClientRequest, route: Route, token: CachedToken | None) -> None:
        """It may pass: say so, and who sends it."""
        identity = NO_IDENTITY if token is None else token.identity
        if b"X-Token-Subject" not in identity:
            identity += NO_SUBJECT
        lines = [
            b"HTTP/1.1 200 OK\r\nDate: %b\r\n" % http_date(int(time.time())).encode("ascii"),
            identity,
            b"X-Request-Id: %b\r\n" % request.request_id,
        ]
        for name, value in request.extra_fields:
            lines.append(f"{name}: {value}\r\n".encode("ascii"))
        if not request.settle_keep_alive():
            lines.append(b"Connection: close\r\n")
        elif request.is_http_10:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"Content-Length: 0\r\n\r\n")
        request.context.responded(200, "")
        request.write(b"".join(lines))
        self._request_log.finish(request.context)
        request.finish()


def _understand(request: ClientRequest, checked: CheckedRequest) -> None:
    """Take the request asked about in place of the one that asks."""
    if not _METHOD.fullmatch(checked.method) or checked.method != checked.method.upper():
        raise UndecidableError(
            "asked_method",
            "The method of the original request is missing, repeated, or not in upper case.",
        )
    if not METHOD_OVERRIDES.isdisjoint(request.head.fields):
        # Here it is dropped from what is forwarded; the other proxy would hand it on.
        raise UndecidableError("method_override", "The request names a second method.")
    try:
        target = parse_target(checked.target)
        host = checked.host if target.authority is None else target.authority.encode("ascii")
        request.routing_host = routing_host(host) if host else ""
    except BadRequestError as error:
        # It is the client's fault, and no reason to end the connection of the proxy.
        raise UndecidableError(error.reason, error.detail) from None
    path = checked.target.partition("?")[0]
    if target.authority is not None:
        path = "/" + path.partition("://")[2].partition("/")[2]
    if path.lower() != target.path.lower():  # escapes may be written in either case
        raise UndecidableError("target_not_canonical", "The path is ambiguous.")
    request.method = checked.method.decode("ascii")
    request.target = target
    request.host = host


def _expect_path(request: ClientRequest, path: str) -> None:
    if request.target.path != path:
        raise NoRouteError("no_route", f"Authorization requests must be sent to {path}.")


def _one(request: ClientRequest, name: bytes) -> bytes:
    """A field that must be there once: two are the proxy's and the client's."""
    value = request.head.one(name)
    if not value:
        raise UndecidableError("asked_field", f"{name.decode('ascii')} is missing or repeated.")
    return value


def _read_nginx(request: ClientRequest, path: str) -> CheckedRequest:
    _expect_path(request, path)
    target = _one(request, b"x-original-uri").decode("latin-1")
    if not target.startswith("/"):
        raise UndecidableError("target_form", "X-Original-URI is not a path.")
    return CheckedRequest(_one(request, b"x-original-method"), target, request.host)


def _read_ingress_nginx(request: ClientRequest, path: str) -> CheckedRequest:
    _expect_path(request, path)
    target = _one(request, b"x-original-url").decode("latin-1")
    if "://" not in target.partition("?")[0]:
        raise UndecidableError("target_form", "X-Original-URL is not a URL.")
    return CheckedRequest(_one(request, b"x-original-method"), target, b"")


def _read_forward_auth(request: ClientRequest, path: str) -> CheckedRequest:
    _expect_path(request, path)
    target = _one(request, b"x-forwarded-uri").decode("latin-1")
    if not target.startswith("/"):
        raise UndecidableError("target_form", "X-Forwarded-Uri is not a path.")
    host = _one(request, b"x-forwarded-host")
    return CheckedRequest(_one(request, b"x-forwarded-method"), target, host)


def _read_envoy(request: ClientRequest, path: str) -> CheckedRequest:
    line = request.line
    prefix, rest = line.raw_target[: len(path)], line.raw_target[len(path) :]
    if prefix != path or not rest.startswith("/"):
        raise NoRouteError("no_route", f"Authorization requests must be sent below {path}.")
    return CheckedRequest(line.method.encode("ascii"), rest, request.host)


_READERS: dict[str, Callable[[ClientRequest, str], CheckedRequest]] = {
    "nginx": _read_nginx,
    "ingress_nginx": _read_ingress_nginx,
    "forward_auth": _read_forward_auth,
    "envoy": _read_envoy,
}
