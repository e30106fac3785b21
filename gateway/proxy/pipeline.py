"""The request path, on one page.

    understood -> provider endpoint answers, or
               -> route matched -> gates passed -> bearer checked -> counted -> forwarded
               -> accounted for

A request that need not wait, because its token is in the cache and a connection to its
upstream idles, goes all the way in one call; one that has to wait goes the same way in a
task of its own. Whatever becomes of it, it is accounted for exactly once: answers of the
upstream, refusals, failures and clients that go away. `docs/request-path.md` tells the
same story in prose.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence

from gateway.downstream.body_reader import RequestTask, WholeBody
from gateway.downstream.h1_response import render_refusal, render_response
from gateway.downstream.request import ClientRequest
from gateway.http.errors import (
    ClientClosedError,
    NotImplementedMethodError,
    ProblemError,
    RateLimitedError,
    StoreDownError,
)
from gateway.oauth.access import CachedToken
from gateway.oauth.bearer import read_bearer
from gateway.oauth.binding.dpop import read_dpop
from gateway.oauth.endpoints import EndpointRequest, ProviderEndpoints
from gateway.oauth.errors import BearerError, MissingTokenError, OAuthError
from gateway.oauth.models import StoreUnavailableError
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.exchange import Exchange
from gateway.proxy.request_log import RequestLog
from gateway.proxy.router import Route, Router
from gateway.proxy.upstream_head import build_request_head
from gateway.rate_limit import Demand, LocalRateLimits, Quota, RateLimits, RateRules

_log = logging.getLogger(__name__)


class Pipeline:
    """Handles the requests of all client connections."""

    def __init__(
        self,
        *,
        router: Router,
        validator: TokenCache,
        endpoints: ProviderEndpoints,
        request_log: RequestLog,
        body_timeout_s: float = 60.0,
        rates: RateLimits | None = None,
        rate_rules: RateRules | None = None,
    ) -> None:
        self._router = router
        self._validator = validator
        self._endpoints = endpoints
        self._request_log = request_log
        self._decisions = request_log.auth_decisions
        self._body_timeout_s = body_timeout_s
        self._rates = rates or RateLimits(LocalRateLimits())
        self._rate_rules = rate_rules or RateRules()

    def handle(self, request: ClientRequest) -> None:
        """Answer one request, now or later. Raises nothing."""
        self._request_log.begin(request)
        try:
            self._serve(request)
        except Exception as error:
            self._fail(request, error)

    def _serve(self, request: ClientRequest) -> None:
        if request.error is not None:
            raise request.error
        if request.target.path in self._endpoints.paths:
            request.context.is_providers = True
            self._wait(request, self._serve_provider(request))
        else:
            self._authorize(request)

    def _authorize(self, request: ClientRequest) -> None:
        """Find the route of a request, and whether its bearer may use it."""
        if request.method == "TRACE":
            # It would tell the client what we tell the upstream (RFC 9110 section 9.3.8).
            raise NotImplementedMethodError("trace", "TRACE is not supported.")
        route = self._router.match(request.routing_host, request.target, request.method, request)
        request.context.route = route
        if route.request_filters and self._is_filtered(request, route):
            return
        if route.auth == "none":
            self._forward(request, route, None)
            return
        token = self._last_token(request)
        if token is not None:
            self._admit(request, route, token)
            return
        bearer = self._read_bearer(request, route)
        if bearer is None:
            self._forward(request, route, None)
        elif request.is_dpop:
            # Never kept with the connection: each request must prove itself.
            self._wait(request, self._look_up(request, route, bearer))
        elif token := self._validator.cached(bearer):
            _keep_token(request, token)
            self._admit(request, route, token)
        else:
            self._wait(request, self._look_up(request, route, bearer))

    def _is_filtered(self, request: ClientRequest, route: Route) -> bool:
        """Whether a gate has answered. Raises what gates refuse with."""
        for request_filter in route.request_filters:
            response = request_filter.check(request)
            if response is not None:
                self._respond(request, response)
                return True
        return False

    def _last_token(self, request: ClientRequest) -> CachedToken | None:
        """The token of the last request on this connection, if it is the same and still fresh."""
        last = request.connection.bearer
        if last is None or request.head.one(b"authorization") != last[0]:
            return None
        return last[1] if self._validator.is_fresh(last[1]) else None

    def _read_bearer(self, request: ClientRequest, route: Route) -> str | None:
        """The bearer token; None where there is none and none is needed."""
        authorization = request.head.all(b"authorization")
        try:
            return read_bearer(authorization)
        except MissingTokenError as error:
            if dpop := read_dpop(authorization):
                request.is_dpop = True
                return dpop.decode("ascii")
            if route.auth == "optional":
                return None
            self._decisions[error.reason] += 1
            raise
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise

    async def _look_up(self, request: ClientRequest, route: Route, bearer: str) -> None:
        """Ask the store, then go on. Raises `StoreDownError` where nobody can tell."""
        try:
            token = await self._validator.lookup(bearer)
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise
        except StoreUnavailableError as error:
            self._decisions[error.code] += 1
            raise StoreDownError(
                error.code,
                f"{error.who} does not respond, so the token can't be validated now.",
                (("Retry-After", str(error.retry_after_s)),),
            ) from error
        if request.is_dpop:
            self._admit_proven(request, route, token)
        else:
            _keep_token(request, token)
            self._admit(request, route, token)

    def _admit(self, request: ClientRequest, route: Route, token: CachedToken) -> None:
        """Forward the request if the token may use the route: asked on every hit."""
        request.context.client_id = token.token.client_id
        try:
            route.access.check(token, request)
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise
        self._decisions["ok"] += 1
        self._forward(request, route, token)

    def _admit_proven(self, request: ClientRequest, route: Route, token: CachedToken) -> None:
        """Forward the request if its proof holds, too (RFC 9449 section 7.1)."""
        request.context.client_id = token.token.client_id
        try:
            route.access.check_proof(token, request)
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise
        self._decisions["ok"] += 1
        self._forward(request, route, token)

    def _forward(self, request: ClientRequest, route: Route, token: CachedToken | None) -> None:
        """Send the request on, if the rate limits on it allow."""
        own = None if token is None else token.token.rate_limit
        if own is None and route.rate_limit is None and self._rate_rules.per_client is None:
            self._send(request, route, token)
            return
        demands = self._rate_rules.demands(
            route=route.name,
            route_limit=route.rate_limit,
            is_for_all=route.is_limit_shared,
            client_id=None if token is None else token.token.client_id,
            client_limit=own,
            address=request.client,
        )
        quota = self._rates.try_acquire(demands)
        if quota is None:
            self._wait(request, self._send_later(request, route, token, demands))
        else:
            self._send_within(request, route, token, quota)

    async def _send_later(
        self,
        request: ClientRequest,
        route: Route,
        token: CachedToken | None,
        demands: Sequence[Demand],
    ) -> None:
        self._send_within(request, route, token, await self._rates.acquire(demands))

    def _send_within(
        self, request: ClientRequest, route: Route, token: CachedToken | None, quota: Quota
    ) -> None:
        if not quota.is_allowed:
            raise RateLimitedError("rate_limited", "Too many requests.", quota.fields())
        request.extra_fields = quota.fields()
        self._send(request, route, token)

    def _send(self, request: ClientRequest, route: Route, token: CachedToken | None) -> None:
        if route.responder is not None:
            self._respond(request, route.responder.response(request))
            return
        context = request.context
        context.sent_at = self._request_log.clock()
        upstream = route.upstream
        if route.split is not None:
            upstream = context.chosen = route.split.choose(request)
        key = ""
        if upstream.hash_on:
            key = upstream.hash_key(context.client_id, request.client, request.head)
        endpoint = upstream.choose(key)
        head = build_request_head(request, route, token, default_host=endpoint.target.authority)
        if route.mirror is not None:
            route.mirror.copy(request, head)
        Exchange(request, upstream, endpoint, head, self._end, key=key).start()

    def _end(self, exchange: Exchange[ClientRequest], error: ProblemError | None) -> None:
        """An exchange with an upstream is over, well or not."""
        request = exchange.client
        self._request_log.forwarded(request.context, exchange)
        if error is None:
            self._request_log.finish(request.context)
            request.finish()
        else:
            self._fail(request, error)

    def _respond(self, request: ClientRequest, response: DirectResponse) -> None:
        """Answer in place of an upstream: what the provider, a gate or the route says."""
        context = request.context
        context.responded(response.status, response.reason)
        context.bytes_out = len(response.body)
        request.write(
            render_response(
                request, response.status, response.headers, response.body, request.request_id
            )
        )
        self._request_log.finish(context)
        request.finish()

    async def _serve_provider(self, request: ClientRequest) -> None:
        """Let the provider answer. Its requests are small, so they are read whole."""
        context = request.context
        body = await WholeBody(request).read(timeout_s=self._body_timeout_s)
        context.bytes_in = len(body)
        response = await self._endpoints.respond(
            EndpointRequest(
                method=request.method,
                path=request.target.path,
                query=request.target.query[1:],
                headers=request.head.raw_fields(),
                body=body,
                source=request.client,
                host=request.routing_host,
                certificate=request.certificate,
            )
        )
        context.client_id = response.client_id
        self._respond(
            request,
            DirectResponse(response.status, response.reason, response.headers, response.body),
        )

    def _wait(self, request: ClientRequest, work: Coroutine[None, None, None]) -> None:
        """Go on in a task, which ends with the client's connection."""
        request.owner = RequestTask(self._guard(request, work))

    async def _guard(self, request: ClientRequest, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            self._fail(request, ClientClosedError("client_closed", "The client went away."))
            raise
        except Exception as error:
            self._fail(request, error)

    def _fail(self, request: ClientRequest, error: Exception) -> None:
        """Refuse a request, or break its response off. Accounts for it."""
        context = request.context
        if isinstance(error, BearerError) and context.route is not None:
            error.resource_metadata = context.route.access.resource_metadata
        if not isinstance(error, ProblemError | OAuthError):
            request_id = request.request_id.decode("ascii")
            _log.error("request %s failed", request_id, exc_info=error)
            error = ProblemError("internal", "Internal error.")
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("request %s: %s", request.request_id.decode("ascii"), error)
        if isinstance(error, ClientClosedError):
            context.responded(error.status, error.reason)
        elif context.has_begun:
            # Too late for another response: the client must see that this one is not whole.
            context.reason = error.reason
            request.abort()
        else:
            context.responded(error.status, error.reason)
            request.write(render_refusal(request, error))
        self._request_log.finish(context)
        request.finish()


def _keep_token(request: ClientRequest, token: CachedToken) -> None:
    request.connection.bearer = request.head.one(b"authorization"), token
