"""The request path, on one page.

    understood -> provider endpoint answers, or
               -> route matched -> bearer checked -> forwarded -> accounted for

Whatever becomes of a request, it is accounted for exactly once: answers of the
upstream, refusals, failures and clients that go away. `docs/request-path.md` tells the
same story in prose.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.oauth.endpoints import EndpointRequest, ProviderEndpoints
from gateway.oauth.errors import BearerError, MissingTokenError, OAuthError
from gateway.oauth.models import StoreUnavailableError
from gateway.oauth.validator import BearerValidator, CachedToken, read_bearer
from gateway.proxy.client import ClientRequest
from gateway.proxy.exchange import Exchange
from gateway.proxy.inbound import Inbound
from gateway.proxy.outbound import render_request_head
from gateway.proxy.outcome import CLIENT_CLOSED, Outcome, Recorder
from gateway.proxy.problems import (
    ContentTooLargeError,
    ProblemError,
    RequestTimeoutError,
    StoreDownError,
)
from gateway.proxy.refusal import render_bare_refusal, render_refusal, render_response
from gateway.proxy.router import Route, Router

MAX_PROVIDER_BODY_BYTES = 64 * 1024

_log = logging.getLogger(__name__)


class DataPlane:
    """Handles the requests of all client connections."""

    def __init__(
        self,
        *,
        router: Router,
        validator: BearerValidator,
        endpoints: ProviderEndpoints,
        recorder: Recorder,
        scheme: bytes = b"http",
    ) -> None:
        self._router = router
        self._validator = validator
        self._endpoints = endpoints
        self._recorder = recorder
        self._scheme = scheme

    async def handle(self, request: ClientRequest) -> ClientRequest:
        """Answer one request. Raises nothing but `asyncio.CancelledError`."""
        outcome = self._recorder.begin(request.method)
        try:
            await self._serve(request, outcome)
        except asyncio.CancelledError:
            outcome.answered(CLIENT_CLOSED, "client_closed")
            raise
        except (ProblemError, OAuthError) as error:
            self._refuse(request, outcome, error)
        except Exception:
            _log.exception("request %s failed", outcome.request_id.decode("ascii"))
            self._refuse(request, outcome, ProblemError("internal", "The gateway failed."))
        finally:
            self._recorder.finish(outcome)
        return request

    async def _serve(self, request: ClientRequest, outcome: Outcome) -> None:
        if request.head_error is not None:
            raise request.head_error
        inbound = Inbound(request)
        outcome.understood(inbound)
        if inbound.target.path in self._endpoints.paths:
            await self._answer(inbound, outcome)
        else:
            route = self._router.match(inbound.routing_host, inbound.target, request.method)
            outcome.matched(route)
            token = await self._authorise(inbound, route, outcome)
            await self._forward(inbound, route, token, outcome)

    async def _authorise(
        self, inbound: Inbound, route: Route, outcome: Outcome
    ) -> CachedToken | None:
        """The token that lets this request through; None where none is needed.

        Raises `BearerError`, and `StoreDownError` where nobody can tell.
        """
        if route.auth == "none":
            return None
        decisions = self._recorder.auth_decisions
        try:
            bearer = read_bearer(inbound.head.all(b"authorization"))
            token = self._validator.cached(bearer) or await self._validator.lookup(bearer)
            outcome.client_id = token.token.client_id
            route.access.check(token)
        except BearerError as error:
            if route.auth == "optional" and isinstance(error, MissingTokenError):
                return None
            decisions[error.reason] += 1
            raise
        except StoreUnavailableError as error:
            decisions["store_unavailable"] += 1
            raise StoreDownError(
                "store_unavailable",
                "The token store does not answer, so nobody can tell whether the token is valid.",
                (("Retry-After", str(error.retry_after_s)),),
            ) from error
        decisions["ok"] += 1
        return token

    async def _forward(
        self, inbound: Inbound, route: Route, token: CachedToken | None, outcome: Outcome
    ) -> None:
        request, upstream, body = inbound.request, route.upstream, inbound.body
        target = upstream.choose(outcome.client_id or inbound.client)
        exchange = request.exchange = Exchange(
            client=request,
            target=target,
            timeouts=upstream.timeouts,
            method=request.method,
            head=render_request_head(
                inbound, route, token, default_host=target.authority, scheme=self._scheme
            ),
            request_id=inbound.request_id,
            body=body,
            is_chunked=request.is_chunked,
            is_upgrade=inbound.is_websocket,
            body_timeout_s=request.connection.limits.body_timeout_s,
        )
        if inbound.head.expects_continue and body is not None and not body.is_eof():
            request.send_continue()
        started = self._recorder.clock()
        try:
            await exchange.run()
        finally:
            request.exchange = None
            duration_s = self._recorder.clock() - started
            upstream.durations.observe(duration_s)
            outcome.forwarded(upstream.name, exchange, duration_s)

    async def _answer(self, inbound: Inbound, outcome: Outcome) -> None:
        """Let the provider answer. Its requests are small, so they are read whole."""
        request = inbound.request
        outcome.route, outcome.route_metrics = "_provider", self._recorder.provider
        body = await _read_body(inbound)
        outcome.bytes_in = len(body)
        response = await self._endpoints.respond(
            EndpointRequest(
                method=request.method,
                path=inbound.target.path,
                query=inbound.target.query[1:],
                headers=request.raw_headers,
                body=body,
                source=inbound.client,
            )
        )
        outcome.client_id = response.client_id
        outcome.bytes_out = len(response.body)
        outcome.answered(response.status, response.reason)
        request.write(
            render_response(
                request, response.status, response.headers, response.body, inbound.request_id
            )
        )

    def _refuse(
        self, request: ClientRequest, outcome: Outcome, error: ProblemError | OAuthError
    ) -> None:
        if outcome.has_begun:
            # Too late for another answer: the client must see that this one is not whole.
            outcome.reason = error.reason
            request.abort()
            return
        outcome.answered(error.status, error.reason)
        request.write(render_refusal(request, error, outcome.request_id))

    def refuse_head(self, peer: str, status: int) -> bytes:
        """Account for a head that never became a request; returns the answer to it."""
        outcome = self._recorder.begin("-")
        outcome.client = peer
        outcome.answered(status, "head_timeout" if status == 408 else "head_too_large")
        self._recorder.finish(outcome)
        return render_bare_refusal(status)


async def _read_body(inbound: Inbound) -> bytes:
    body, request = inbound.body, inbound.request
    if body is None:
        return b""
    if inbound.head.expects_continue and not body.is_eof():
        request.send_continue()
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(request.connection.limits.body_timeout_s):
            while piece := await body.readany():
                pieces.append(piece)
                size += len(piece)
                if size > MAX_PROVIDER_BODY_BYTES:
                    raise ContentTooLargeError("body_too_large", "The request body is too large.")
    except TimeoutError:
        raise RequestTimeoutError("client_body_timeout", "The request body stopped.") from None
    return b"".join(pieces)
