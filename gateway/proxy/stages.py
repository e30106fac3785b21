"""The stages of the request path; `gateway.proxy.pipeline` has their order.

A stage takes the context and returns nothing, so that the next one goes on; a response, which
ends the request; or a coroutine, which is awaited first. It raises `ProblemError` or `OAuthError`
to reject the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Final

from gateway.codec import digest_bearer
from gateway.downstream.body_reader import WholeBody
from gateway.downstream.request import Request
from gateway.http.errors import (
    ContentTooLargeError,
    NoRouteError,
    NotImplementedMethodError,
    ProblemError,
    RateLimitedError,
    StoreDownError,
)
from gateway.http.grpc import read_timeout
from gateway.metrics import Clock, Tally
from gateway.oauth.access import CachedToken
from gateway.oauth.bearer import read_bearer
from gateway.oauth.binding.dpop import read_dpop
from gateway.oauth.endpoints import EndpointRequest, ProviderEndpoints, error_response
from gateway.oauth.endpoints.paths import ProviderPaths
from gateway.oauth.errors import BearerError, MissingTokenError, TooLargeError
from gateway.oauth.models import StoreUnavailableError
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.context import RequestContext
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.exchange import Exchange
from gateway.proxy.mcp import McpRules
from gateway.proxy.mirror import Mirror
from gateway.proxy.request_filters import FilteredTrailers, LimitedBody, check_body_limit
from gateway.proxy.response_filter import ResponseFilter
from gateway.proxy.router import Route, Router
from gateway.proxy.token_watch import FrameBoundary, TokenWatch
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.upstream_head import build_request_head
from gateway.rate_limit import Demand, Quota, RateLimits, RateRules
from gateway.upstream.stream import UpstreamRequestHead

Waiting = Coroutine[None, None, DirectResponse | None]
Stage = Callable[[RequestContext], DirectResponse | Waiting | None]
Done = Callable[[Exchange[RequestContext], ProblemError | None], None]
"""Called when the upstream is done with a request, well or not."""

_digest_bearer: Final = digest_bearer  # as in `downstream.request`

_OPTIONS = DirectResponse(
    204, "", (("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),), b""
)


def understand(context: RequestContext) -> None:
    """Reject a request that is malformed or ambiguous, or asks for what a proxy does not do."""
    if context.request.error is not None:
        raise context.request.error


class ProviderStage:
    """Responds to the provider's own paths, which come before all routes, on every host."""

    def __init__(self, endpoints: ProviderEndpoints, *, body_timeout_s: float) -> None:
        self._endpoints = endpoints
        self._known: ProviderPaths = endpoints.known_paths
        self._body_timeout_s = body_timeout_s

    def provider(self, context: RequestContext) -> Waiting | None:
        """Let the provider respond, if the path is one of its own."""
        target, known = context.request.target, self._known
        path = target.path
        if target.has_escaped_slash:
            # An upstream that decodes could take it for a path that is not its own.
            readings = target.other_readings
            if any(known.serves(one) or known.is_misspelled(one) for one in readings):
                raise _no_provider_path()
        if path[: known.start_chars] not in known.starts:
            return None
        if known.serves(path):
            context.is_providers = True
            return self._respond(context)
        if known.is_misspelled(path):
            context.is_providers = True
            raise _no_provider_path()
        return None

    async def _respond(self, context: RequestContext) -> DirectResponse:
        request, body = context.request, b""
        if request.head.has_body:  # small, so it is read whole
            try:
                body = await WholeBody(context.stream).read(timeout_s=self._body_timeout_s)
            except ContentTooLargeError as error:
                rejected = error_response(TooLargeError(reason=error.reason))
                return DirectResponse(
                    error.status, error.reason, rejected.headers, rejected.body, error.closes
                )
        context.bytes_in = len(body)
        response = await self._endpoints.respond(make_endpoint_request(request, body))
        context.client_id = response.client_id
        return DirectResponse(response.status, response.reason, response.headers, response.body)


def make_endpoint_request(request: Request, body: bytes) -> EndpointRequest:
    """Make the provider's value of a request, whose body was read."""
    return EndpointRequest(
        method=request.method,
        path=request.target.path,
        query=request.target.query[1:],
        headers=request.raw_headers,
        body=body,
        source=request.client,
        host=request.routing_host,
        certificate=request.certificate,
    )


def _no_provider_path() -> NoRouteError:
    return NoRouteError("provider_path", "This is no path of the provider.")


class RouteStage:
    """Finds the route of a request."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def route(self, context: RequestContext) -> DirectResponse | None:
        """Match host, path, method and conditions."""
        request = context.request
        if request.method == "OPTIONS":
            hops = request.head.one(b"max-forwards")
            if request.target.path == "*" or (hops and not hops.strip(b"0")):
                # About this server; or not to be forwarded (RFC 9110 section 7.6.2).
                return _OPTIONS
        elif request.method == "TRACE":
            # It would show the client what we send to the upstream (RFC 9110 section 9.3.8).
            raise NotImplementedMethodError("trace", "TRACE is not supported.")
        context.route = self._router.match(
            request.routing_host, request.target, request.method, request
        )
        return None


def filter_request(context: RequestContext) -> DirectResponse | None:
    """Apply what the route asks of a request before its token is looked at."""
    route = context.route
    assert route is not None
    if route.response_rules is not None:
        context.response_filter = ResponseFilter(route.response_rules, context.values)
    for request_filter in route.request_filters:
        response = request_filter.check(context.request)
        if response is not None:
            return response
    limit_bytes = route.body_limit
    if limit_bytes is not None:
        check_body_limit(context.request.head, limit_bytes)
        if context.request.head.is_chunked:
            limit = limit_bytes
            context.body_taps = (lambda sink: LimitedBody(sink, limit),)
    return None


def store_down(error: StoreUnavailableError, what: str) -> StoreDownError:
    """Return the error of a request whose `what` can't be verified now."""
    return StoreDownError(
        error.code,
        f"{error.who} does not respond, so the {what} cannot be verified.",
        (("Retry-After", str(error.retry_after_s)),),
    )


class TokenStages:
    """Find the token of a request, and check whether it may use the route."""

    def __init__(self, validator: TokenCache, decisions: Tally) -> None:
        self._validator = validator
        self._decisions = decisions

    def authenticate(self, context: RequestContext) -> Waiting | None:
        """Find out what the bearer token is; without waiting where it is cached."""
        request, route = context.request, context.route
        assert route is not None
        if route.auth == "none":
            return None
        value = request.head.one(b"authorization")
        last = request.peer.bearer
        if last is not None and value == last[0] and self._validator.is_fresh(last[1]):
            context.token = last[1]
            return None
        digest = _digest_bearer(value)
        if digest is not None and (token := self._validator.cached_digest(digest)):
            _keep_token(context, token, value)
            return None
        bearer = self._read_bearer(context, route)
        if bearer is None:
            return None
        if (
            digest is None
            and not context.is_dpop
            and (token := self._validator.cached(bearer)) is not None
        ):
            _keep_token(context, token, value)
            return None
        return self._look_up(context, bearer, value)

    def _read_bearer(self, context: RequestContext, route: Route) -> str | None:
        """The bearer token; None where there is none and none is needed."""
        authorization = context.request.head.all(b"authorization")
        try:
            return read_bearer(authorization)
        except MissingTokenError as error:
            if dpop := read_dpop(authorization):
                context.is_dpop = True
                return dpop.decode("ascii")
            if route.auth == "optional":
                return None
            self._decisions[error.reason] += 1
            raise
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise

    async def _look_up(self, context: RequestContext, bearer: str, value: bytes) -> None:
        """Read the token from the store. Raises `StoreDownError` where that, or the issuer of the
        token, is unavailable."""
        try:
            token = await self._validator.lookup(bearer)
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise
        except StoreUnavailableError as error:
            self._decisions[error.code] += 1
            raise store_down(error, "token") from error
        if context.is_dpop:
            # Never kept with the connection: each request must prove itself.
            context.token = token
        else:
            _keep_token(context, token, value)

    def authorize(self, context: RequestContext) -> Waiting | None:
        """Check that the token may use the route, on every hit of the cache: expiry, scopes,
        clients, audience, and proof of possession (RFC 9449 section 7.1)."""
        token = context.token
        if token is None:
            return None
        route = context.route
        assert route is not None
        context.client_id = token.client_id
        access = route.access
        try:
            if context.is_dpop:
                using = access.check_proof(token, context.request)
                if using is not None:
                    return self._use_proof(using)
            else:
                access.check(token, context.request)
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise
        self._decisions["ok"] += 1
        return None

    async def _use_proof(self, using: Coroutine[None, None, None]) -> None:
        """Wait until a DPoP proof is used up in the store. Raises `StoreDownError`."""
        try:
            await using
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise
        except StoreUnavailableError as error:
            self._decisions[error.code] += 1
            raise store_down(error, "DPoP proof") from error
        self._decisions["ok"] += 1


def inspect(context: RequestContext) -> Waiting | None:
    """Check what a request calls of an MCP server, by its body."""
    route = context.route
    assert route is not None
    if route.mcp is None or not route.mcp.needs_body(context.request):
        return None
    return _inspect(context, route.mcp, route.access.scopes)


async def _inspect(context: RequestContext, mcp: McpRules, scopes: frozenset[str]) -> None:
    context.body = await mcp.inspect(context.request, context.stream, context.token, scopes)


class LimitStage:
    """Counts requests against the rate limits on them."""

    def __init__(self, rates: RateLimits, rules: RateRules) -> None:
        self._rates = rates
        self._rules = rules

    def limit(self, context: RequestContext) -> Waiting | None:
        """Count one; without waiting where the limits are those of this process."""
        token, route = context.token, context.route
        assert route is not None
        own = own_key = None
        if token is not None and token.has_rate_limit:
            own, own_key = token.token.rate_limit, token.token.key_limit
        if (
            own is None
            and own_key is None
            and route.rate_limit is None
            and self._rules.per_client is None
        ):
            return None
        demands = self._rules.demands(
            route=route.name,
            route_limit=route.rate_limit,
            is_for_all=route.is_limit_shared,
            client_id=None if token is None else token.client_id,
            client_limit=own,
            address=context.request.client,
        )
        if own_key is not None:
            demands = (*demands, Demand(f"key:{context.key_id}", "", own_key))
        quota = self._rates.try_acquire(demands)
        if quota is None:
            return self._acquire(context, demands)
        _apply_quota(context, quota)
        return None

    async def _acquire(self, context: RequestContext, demands: Sequence[Demand]) -> None:
        _apply_quota(context, await self._rates.acquire(demands))


def respond_directly(context: RequestContext) -> DirectResponse | None:
    """Respond in place of an upstream, where the route says so."""
    route = context.route
    assert route is not None
    return None if route.responder is None else route.responder.respond(context.values())


class ForwardStage:
    """Sends requests to upstreams."""

    def __init__(self, clock: Clock, done: Done, tokens: TokenCache | None = None) -> None:
        """`tokens` says of WebSockets whether their token is still valid."""
        self._clock = clock
        self._done = done
        self._tokens = tokens

    def forward(self, context: RequestContext) -> None:
        """Choose an upstream and an endpoint, and start the exchange."""
        request, route = context.request, context.route
        assert route is not None
        context.sent_at = self._clock()
        upstream = route.upstream
        if route.split is not None:
            upstream = route.split.choose(request, context.client_id)
        context.upstream = upstream
        key = ""
        if upstream.hash_on:
            key = upstream.hash_key(context.client_id, request.client, request.head)
        endpoint = upstream.choose(key)
        head = build_request_head(context, route, default_host=endpoint.target.authority)
        if route.mirror is not None:
            _copy_request(context, route.mirror, head)
        if request.head.has_body:
            _filter_trailers(context, route)
        exchange = Exchange(
            context,
            context.stream,
            upstream=upstream,
            endpoint=endpoint,
            head=head,
            done=self._done,
            key=key,
        )
        if request.head.is_grpc:
            exchange.is_grpc = True
        if b"grpc-timeout" in request.head.fields:
            timeout_s = read_timeout(request.head.one(b"grpc-timeout"))
            if timeout_s is not None:
                spent_s = context.sent_at - context.started
                exchange.expires_at = asyncio.get_running_loop().time() + timeout_s - spent_s
        if context.response_filter is not None:
            exchange.response_filter = context.response_filter
        if context.extra_fields:
            exchange.extra_fields = context.extra_fields
        if context.body_taps:
            exchange.body_taps = context.body_taps
        if route.mcp is not None:
            exchange.whole_body, exchange.may_stream = context.body, True
        if route.closes_with_token and head.upgrade and context.token is not None:
            self._watch(context, exchange)
        exchange.start()

    def _watch(self, context: RequestContext, exchange: Exchange[RequestContext]) -> None:
        """Have a tunnel end with its token."""
        tokens, token = self._tokens, context.token
        assert token is not None
        assert tokens is not None
        value = context.request.head.one(b"authorization").partition(b" ")[2].strip()
        lookup = context.lookup or partial(tokens.lookup, value.decode("ascii"))
        finish = context.on_finish

        def begin(tunnel: Tunnel) -> None:
            if context.request.is_websocket:
                tunnel.boundary = FrameBoundary()
            watch = TokenWatch(tokens, token, lookup, tunnel.expire)

            def over() -> None:
                watch.stop()
                if finish is not None:
                    finish()

            context.on_finish = over

        exchange.on_tunnel = begin


def _copy_request(context: RequestContext, mirror: Mirror, head: UpstreamRequestHead) -> None:
    request = context.request
    shadow = mirror.copy(request, context.client_id, head)
    if shadow is not None:
        context.on_finish = shadow.request_over
        if request.head.has_body:
            context.body_taps = (*context.body_taps, shadow.tap)


def _filter_trailers(context: RequestContext, route: Route) -> None:
    """Keep what a request's head may not say from its trailers; after the mirror's tap, which
    does not receive it either."""
    changes, certificate_header = route.changes, context.request.peer.certificate_header
    if changes is not None or certificate_header:
        context.body_taps = (
            *context.body_taps,
            lambda sink: FilteredTrailers(sink, changes, certificate_header),
        )


def _keep_token(context: RequestContext, token: CachedToken, value: bytes) -> None:
    """Keep a token with the connection, by the value of Authorization."""
    context.token = token
    context.request.peer.bearer = value, token


def _apply_quota(context: RequestContext, quota: Quota) -> None:
    if not quota.is_allowed:
        raise RateLimitedError("rate_limited", "Too many requests.", quota.fields())
    context.extra_fields = quota.fields()
