"""The request path, on one page: the stages in order, and what drives them.

    understand        400, 501      unambiguous, or error             downstream/request, http/
    provider          /token, ...   the provider's own paths          oauth/endpoints/
    route             404, 405      host, path, method, conditions    router, conditions
    filter_request    403, 413 ...  addresses, https, preflights      request_filters
    authenticate      401, 503      what the token is                 oauth/token_cache
    authorize         403           what it may do here               oauth/access
    inspect           400, 403      what it calls of an MCP server    mcp
    limit             429           how often                         rate_limit
    respond_directly  redirects     in place of an upstream           direct_response
    forward           502, 503, 504 split, mirror, exchange           traffic_split, exchange

A request that need not wait, because its token is in the cache and a connection to its upstream
idles, goes all the way in one call; where a stage has to wait, the request goes on in a task of
its own. Whatever becomes of it, it is accounted for exactly once: responses of the upstream,
rejections, failures and clients that leave. `request-path.md` describes each stage.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from gateway.downstream.body_reader import RequestTask
from gateway.downstream.request import Request
from gateway.downstream.stream import ClientStream
from gateway.http.errors import (
    REASON_PHRASES,
    ClientClosedError,
    Headers,
    ProblemError,
    render_problem,
)
from gateway.http.grpc import CONTENT_TYPE, encode_message, status_for
from gateway.http.response_head import make_response_head
from gateway.oauth.authentication.cached_secrets import CachedClientSecrets
from gateway.oauth.endpoints import ProviderEndpoints
from gateway.oauth.errors import BearerError, OAuthError
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.context import RequestContext
from gateway.proxy.credentials import build_authentication
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.exchange import Exchange
from gateway.proxy.request_log import RequestLog
from gateway.proxy.router import Router
from gateway.proxy.stages import (
    ForwardStage,
    LimitStage,
    ProviderStage,
    RouteStage,
    Stage,
    Waiting,
    filter_request,
    inspect,
    respond_directly,
    understand,
)
from gateway.rate_limit import LocalRateLimits, RateLimits, RateRules

_log = logging.getLogger(__name__)


class Pipeline:
    """Takes requests through stages, and accounts for them."""

    def __init__(self, log: RequestLog) -> None:
        self.log = log
        self.stages: tuple[Stage, ...] = ()

    def handle(self, stream: ClientStream, request: Request) -> None:
        """Respond to one request, now or later. Raises nothing."""
        context = self.log.begin(stream, request)
        try:
            self._run(context, self.stages)
        except Exception as error:
            self._fail(context, error)

    def close(self) -> None:
        """Let go of the stages: another pipeline takes requests from now on. With them go routes
        and rules, without the garbage collector; those that requests are in go on."""
        self.stages = ()

    def _run(self, context: RequestContext, stages: tuple[Stage, ...]) -> None:
        for stage in stages:
            result = stage(context)
            if result is not None:
                if isinstance(result, DirectResponse):
                    self._respond(context, result)
                else:
                    self._wait(context, result, stages[stages.index(stage) + 1 :])
                return

    def _wait(self, context: RequestContext, work: Waiting, rest: tuple[Stage, ...]) -> None:
        """Go on in a task, which ends with the client's connection."""
        task = RequestTask(self._go_on(context, work, rest))
        task.task.add_done_callback(partial(self._end_task, context, work))
        context.stream.owner = task

    async def _go_on(self, context: RequestContext, work: Waiting, rest: tuple[Stage, ...]) -> None:
        try:
            response = await work
            if response is not None:
                self._respond(context, response)
            else:
                self._run(context, rest)
        except Exception as error:
            self._fail(context, error)

    def _end_task(self, context: RequestContext, work: Waiting, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # perhaps before it ran at all
            work.close()
            self._fail(context, ClientClosedError("client_closed", "The client went away."))

    def end(self, exchange: Exchange[RequestContext], error: ProblemError | None) -> None:
        """The upstream is done with a request."""
        context = exchange.caller
        self.log.forwarded(context, exchange)
        if error is not None:
            self._fail(context, error)
        else:
            self._finish(context)

    def _respond(self, context: RequestContext, response: DirectResponse) -> None:
        """Respond in place of an upstream."""
        fields = (*response.headers, *context.extra_fields)
        if context.response_filter is not None:
            fields = context.response_filter.fields(fields)
        status, body = response.status, response.body
        context.responded(status, response.reason)
        if status >= 400 and context.request.head.is_grpc and not context.is_providers:
            context.refused_grpc(status_for(status))
            status, body = 200, b""
            fields = trailers_only(context.grpc_status, response, fields)
        head = make_response_head(status, fields, length=len(body))
        if head.has_body(is_response_to_head=context.request.method == "HEAD"):
            context.bytes_out = len(body)
        context.stream.respond(head, body, closes=response.closes)
        self._finish(context)

    def _fail(self, context: RequestContext, error: Exception) -> None:
        """Reject a request, or break its response off."""
        if isinstance(error, BearerError):
            complete_challenge(error, context)
        request_id = context.request.request_id.decode("ascii")
        raised = error
        if not isinstance(error, ProblemError | OAuthError):
            _log.error("request %s failed", request_id, exc_info=error)
            error = ProblemError("internal", "Internal error.")
        raised.__traceback__ = None  # its frames hold what holds it, until garbage is collected
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("request %s: %s", request_id, error)
        if isinstance(error, ClientClosedError) and not context.has_begun:
            context.responded(error.status, error.reason)
        elif context.has_begun:
            # Too late for another response: the client must see that this one is not whole.
            context.reason = error.reason
            context.stream.reset()
        else:
            self._respond(context, render_rejection(error, request_id))
            return
        self._finish(context)

    def _finish(self, context: RequestContext) -> None:
        self.log.finish(context)
        context.stream.owner = None
        finish = context.on_finish
        if finish is not None:
            context.on_finish = None  # it knows the context
            finish()
        context.stream.release()


def trailers_only(grpc_status: int, response: DirectResponse, fields: Headers) -> Headers:
    """Return the fields of a response that clients of gRPC understand: no body, its status and
    message in the head (Trailers-Only), challenges and quotas as metadata."""
    detail = response.detail or REASON_PHRASES.get(response.status, "")
    kept = [field for field in fields if field[0].lower() != "content-type"]
    return (
        ("Content-Type", CONTENT_TYPE.decode("ascii")),
        ("Grpc-Status", str(grpc_status)),
        ("Grpc-Message", encode_message(detail)),
        *kept,
    )


def complete_challenge(error: BearerError, context: RequestContext) -> None:
    """Have the challenge of a rejection name the metadata of the route, and its scopes."""
    if context.route is not None:
        access = context.route.access
        error.resource_metadata = access.metadata_url(context.request.target.path)
        if error.names_scope:
            error.scope = error.scope or " ".join(sorted(access.needed_scopes))
        if (credentials := context.route.credentials) is not None:
            error.takes_bearer = credentials.takes_bearer
            error.other_challenges = credentials.challenges


def render_rejection(error: ProblemError | OAuthError, request_id: str) -> DirectResponse:
    """Render problem details (RFC 9457)."""
    closes = False
    if isinstance(error, ProblemError):
        closes, detail = error.closes, error.detail
    else:
        detail = error.description
    body = render_problem(error.status, error.reason, detail, request_id)
    fields = (("Content-Type", "application/problem+json"), *error.headers)
    return DirectResponse(error.status, error.reason, fields, body, closes, detail)


def build_pipeline(
    *,
    router: Router,
    validator: TokenCache,
    endpoints: ProviderEndpoints,
    log: RequestLog,
    body_timeout_s: float = 60.0,
    rates: RateLimits | None = None,
    rate_rules: RateRules | None = None,
    secrets: CachedClientSecrets | None = None,
) -> Pipeline:
    """The request path of a gateway."""
    pipeline = Pipeline(log)
    tokens = build_authentication(router, validator, secrets, log.auth_decisions)
    stages: tuple[Stage, ...] = (
        understand,
        ProviderStage(endpoints, body_timeout_s=body_timeout_s).provider,
        RouteStage(router).route,
        filter_request,
        tokens.authenticate,
        tokens.authorize,
        inspect,
        LimitStage(rates or RateLimits(LocalRateLimits()), rate_rules or RateRules()).limit,
        respond_directly,
        ForwardStage(log.clock, pipeline.end, validator).forward,
    )
    # What no route has, no request pays for the look at it.
    skipped: set[Stage] = set()
    if not router.uses_mcp:
        skipped.add(inspect)
    if not router.uses_responders:
        skipped.add(respond_directly)
    pipeline.stages = tuple(stage for stage in stages if stage not in skipped)
    return pipeline
