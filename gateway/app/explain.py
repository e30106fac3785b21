"""Explains how a request would be routed: which route matches and why, what it requires, and what
its upstream would get.

Nothing is sent and no store is asked. The stages of the request path (`gateway.proxy.stages`)
run on a request that is read by its reader.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from gateway.app.build.listeners import build_router, trusted_proxies
from gateway.app.build.provider import provider_policy
from gateway.app.build.upstreams import build_upstreams
from gateway.app.explain_routes import why_not
from gateway.app.explain_token import ClaimsError, describe_rules, some_token, token_of_claims
from gateway.config import Config
from gateway.config.routes import RouteConfig
from gateway.downstream.request import Peer, Request
from gateway.downstream.stream import DiscardingStream
from gateway.http.errors import ProblemError
from gateway.http.request_head import read_request_head, read_request_line
from gateway.metrics import Metrics
from gateway.oauth.access import CachedToken
from gateway.oauth.endpoints import provider_paths
from gateway.oauth.errors import BearerError
from gateway.proxy.context import RequestContext
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.router import Route, Router
from gateway.proxy.stages import (
    RouteStage,
    filter_request,
    respond_directly,
    understand,
)
from gateway.proxy.upstream_head import build_request_head
from gateway.templates import IN_REQUEST_HEADERS, parse_template
from gateway.upstream.h1_head import render_request_head

Explanation = dict[str, Any]
"""Plain data, as `docs/reference/routing.md` describes it."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_SECRET = re.compile(
    r".*(?:auth|cookie|credential|dpop|hmac|key|pass|pwd?|secret|session|signature|token|verify).*",
    re.DOTALL,
)
_SHOWN_ANYWAY = frozenset({"x-token-scopes", "x-token-subject"})
HIDDEN = "<hidden>"
MIN_HIDDEN_PART = 4
"""Characters of a text from a variable that is hidden within other texts, too."""


class ExplainError(ValueError):
    """The request to explain is invalid; the text says why."""


def explain(
    config: Config,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]] = (),
    *,
    source: str = "127.0.0.1",
    claims: Mapping[str, Any] | None = None,
) -> Explanation:
    """Explain how `METHOD URL` with these headers, sent from the address `source`, would be routed;
    with a token of these claims, or one that the route accepts.

    A `url` without a scheme is a path; its host is that of a `Host` header, or `localhost`.
    Called on a running event loop. Raises `ExplainError`, and `OSError` for certificates of
    upstreams that can't be read.
    """
    line, block, scheme = _read(method, url, headers)
    metrics = Metrics()
    router = build_router(config, build_upstreams(config, metrics), metrics)
    peer = Peer(source, scheme=scheme, trusted_proxies=trusted_proxies(config))
    try:
        head = read_request_head(block, max_fields=config.listen.limits.headers)
        request = Request(read_request_line(line), head, peer)
        context = RequestContext(DiscardingStream(), request, 0.0)
        understand(context)
    except ProblemError as error:
        return {"result": _refusal(error), "route": None, "others": []}
    return _Explainer(config, router, context, claims).explain()


async def explain_aside(
    config: Config,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    *,
    source: str,
    claims: Mapping[str, Any] | None = None,
) -> Explanation:
    """`explain` for a running gateway: in a thread, because it builds a router each time."""

    async def fetch() -> Explanation:
        return explain(config, method, url, headers, source=source, claims=claims)

    return await asyncio.to_thread(lambda: asyncio.run(fetch()))


class _Explainer:
    """Takes a request through the stages, and writes down what each of them finds."""

    def __init__(
        self,
        config: Config,
        router: Router,
        context: RequestContext,
        claims: Mapping[str, Any] | None,
    ) -> None:
        self._config = config
        self._router = router
        self._context = context
        self._claims = claims

    def explain(self) -> Explanation:
        """All of it, but for what came from variables."""
        filled = self._config.filled_texts("routes", "upstreams")
        filled |= {netloc for text in filled if (netloc := urlsplit(text).netloc)}
        # The longest first: one may be part of another.
        texts = sorted(filled, key=len, reverse=True)
        explanation = self._explain()
        hidden: Explanation = _hide_texts(explanation, texts) if texts else explanation
        if "request" in explanation:  # it is what the caller gave
            hidden["request"] = explanation["request"]
        return hidden

    def _explain(self) -> Explanation:
        context, request = self._context, self._context.request
        target = request.target
        explanation: Explanation = {
            "request": {
                "method": request.method, "host": request.routing_host, "path": target.path,
                "query": target.query[1:], "client": request.client,
            },
            "route": None,
        }  # fmt: skip
        paths = provider_paths(provider_policy(self._config))
        if paths.serves(target.path) or paths.is_misspelled(target.path):
            return explanation | {"result": {"answered_by": "provider"}, "others": []}
        try:
            RouteStage(self._router).route(context)
        except ProblemError as error:
            return explanation | {"result": _refusal(error), "others": self._others(None)}
        route = context.route
        assert route is not None
        settings = next(one for one in self._config.routes if one.name == route.name)
        explanation["route"] = _describe_route(settings)
        explanation["others"] = self._others(route)
        explanation["auth"] = _describe_auth(settings, route)
        explanation["gates"] = _describe_filters(route)
        try:
            response = filter_request(context)
            if response is None:
                if route.auth != "none":
                    context.token = self._find_token(settings, route)
                    context.client_id = context.token.token.client_id
                    rules = route.access.claim_rules
                    given = None if self._claims is None else context.token.claims
                    explanation["auth"]["claims"] = describe_rules(rules, given)
                    if self._claims is not None:
                        route.access.check(context.token, context.request)
                response = respond_directly(context)
            explanation["result"] = (
                self._destination(route, settings, explanation)
                if response is None
                else _describe_response(response)
            )
        except (ProblemError, BearerError) as error:
            explanation["result"] = _refusal(error)
        return explanation

    def _find_token(self, settings: RouteConfig, route: Route) -> CachedToken:
        if self._claims is not None:
            try:
                return token_of_claims(self._config, self._claims)
            except ClaimsError as error:
                raise ExplainError(str(error)) from None
        return some_token(route, settings.clients[0] if len(settings.clients) == 1 else "CLIENT_ID")

    def _others(self, chosen: Route | None) -> list[dict[str, str]]:
        return [
            {
                "name": route.name,
                "why_not": why_not(route, chosen, self._context.request, is_secret=_is_secret),
            }
            for route in self._router.routes
            if route is not chosen
        ]

    def _destination(
        self, route: Route, settings: RouteConfig, explanation: Explanation
    ) -> Explanation:
        names = [share.upstream for share in settings.split] or [settings.upstream or ""]
        if names == [""]:
            return {"answered_by": "authz"}
        total = sum(share.weight for share in settings.split)
        shares = {share.upstream: share.weight / total for share in settings.split}
        explanation["upstreams"] = [
            self._describe_upstream(name, shares.get(name, 1.0)) for name in names
        ]
        if settings.mirror is not None:
            explanation["mirror"] = settings.mirror.model_dump(mode="json")
        explanation["limits"] = _describe_limits(settings)
        first = self._config.upstreams[names[0]].targets[0]
        head = build_request_head(
            self._context,
            route,
            default_host=urlsplit(first if isinstance(first, str) else first.url).netloc.encode()
            or b"localhost",
        )
        explanation["forwarded_head"] = _hide_secrets(render_request_head(head), settings)
        return {"answered_by": "upstream"}

    def _describe_upstream(self, name: str, share: float) -> Explanation:
        settings = self._config.upstreams[name]
        explanation = settings.model_dump(
            mode="json", exclude={"tls"}, exclude_none=True, by_alias=True
        )
        return {"name": name, "share": round(share, 4)} | explanation


def _describe_route(route: RouteConfig) -> Explanation:
    return {
        "name": route.name,
        "match": _hide_match_secrets(
            route.match.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        ),
        "rewrite": route.rewrite.model_dump(mode="json", exclude_defaults=True, by_alias=True),
    }


def _describe_auth(settings: RouteConfig, route: Route) -> Explanation:
    if route.auth == "none":
        return {"mode": "none"}
    return {
        "mode": route.auth,
        "credentials": list(settings.credentials),
        "scopes": list(settings.all_scopes),
        "any_scopes": list(settings.any_scopes),
        "clients": list(settings.clients),
        "audience": [*settings.audience, *sorted(route.access.resources)],
    }


def _describe_filters(route: Route) -> list[str]:
    names = [one.name for one in route.request_filters]
    if route.response_rules is not None:
        names.insert(0, "response_headers")
    if route.body_limit is not None:
        names.append("limits.body")
    return names


def _describe_limits(route: RouteConfig) -> Explanation:
    limit = route.rate_limit
    return {
        "body_bytes": None if route.limits is None else route.limits.body,
        "rate_limit": None if limit is None else limit.model_dump(mode="json", by_alias=True),
    }


def _refusal(error: ProblemError | BearerError) -> Explanation:
    return {
        "answered_by": "gateway", "status": error.status, "reason": error.reason,
        "detail": error.detail if isinstance(error, ProblemError) else error.description,
    }  # fmt: skip


def _describe_response(response: DirectResponse) -> Explanation:
    return {
        "answered_by": "gateway", "status": response.status, "reason": response.reason,
        "headers": [list(field) for field in response.headers],
    }  # fmt: skip


def _hide_texts(value: Any, texts: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: _hide_texts(inner, texts) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hide_texts(inner, texts) for inner in value]
    if isinstance(value, str):
        for text in texts:
            # A short text is also part of words that have nothing to do with it.
            if value == text or (len(text) >= MIN_HIDDEN_PART and text in value):
                value = value.replace(text, HIDDEN)
    return value


def _hide_secrets(head: bytes, route: RouteConfig) -> list[str]:
    lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    literal = _literal_fields(route)
    return [lines[0], *(_hide_secret(line, literal) for line in lines[1:])]


def _hide_secret(line: str, literal: Collection[str]) -> str:
    name = line.partition(":")[0]
    return f"{name}: {HIDDEN}" if name.lower() in literal or _is_secret(name) else line


def _literal_fields(route: RouteConfig) -> set[str]:
    """Return the fields in which the route writes a text of the configuration: it may be the
    upstream's password, whatever the field is called."""
    changes = route.request_headers
    if changes is None:
        return set()
    return {
        name.lower()
        for fields in (changes.set, changes.add)
        for name, value in fields.items()
        for part in parse_template(value, IN_REQUEST_HEADERS)
        if isinstance(part, str) and any(map(str.isalnum, part))
    }


def _is_secret(name: str) -> bool:
    return _SECRET.fullmatch(name.lower()) is not None and name.lower() not in _SHOWN_ANYWAY


def _hide_match_secrets(match: Explanation) -> Explanation:
    """Leave out, of what a route matches on, the values that a client has to know."""
    hidden = {
        part: [
            {
                key: HIDDEN if key in {"exact", "regex"} else value
                for key, value in condition.items()
            }
            if _is_secret(condition["name"])
            else condition
            for condition in match[part]
        ]
        for part in ("headers", "query")
        if part in match
    }
    return match | hidden


def _read(method: str, url: str, headers: Sequence[tuple[str, str]]) -> tuple[bytes, bytes, str]:
    """The request line and the field lines, as a client would send them, and the scheme."""
    if not _TOKEN.fullmatch(method):
        raise ExplainError(f"{method!r} is no method: expected letters, such as GET")
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ExplainError(f"{name!r} is no header field: expected 'Name: value'")
    scheme, mark, rest = url.partition("://")
    if mark and scheme.lower() in {"http", "https"}:
        authority, slash, path = rest.partition("/")
        if "?" in authority:
            authority, _, query = rest.partition("?")
            slash, path = "/?", query
        target = f"{slash}{path}" or "/"
    elif url.startswith("/"):
        scheme, authority, target = "http", "localhost", url
    else:
        raise ExplainError(
            "expected a URL such as https://api.example/orders, or a path such as /orders, not "
            f"{url!r}"
        )
    target = target.partition("#")[0]
    if not target.isascii() or not target.isprintable() or " " in target:
        raise ExplainError(f"the URL {url!r} has a character that must be percent-encoded")
    fields = list(headers)
    if not any(name.lower() == "host" for name, _ in fields):
        fields.insert(0, ("Host", authority))
    block = "\r\n".join(f"{name}: {value}" for name, value in fields).encode("latin-1")
    return f"{method} {target} HTTP/1.1".encode("ascii"), block, scheme.lower()
