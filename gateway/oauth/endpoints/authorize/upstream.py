"""Signing in at an upstream provider: sent there, and come back.

What is needed when the user comes back travels in `state`, sealed, so nothing is
stored for users who never do. It is bound to the browser by a cookie: a response that another user
else got can't be brought in by a link (RFC 9700 section 4.7).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from gateway.oauth.authorization.request import AuthorizationRequest
from gateway.oauth.credentials import random_text
from gateway.oauth.endpoints.authorize.flow import ExpiredFormError, Flow, FlowStep
from gateway.oauth.endpoints.authorize.pages import redirect
from gateway.oauth.endpoints.authorize.sign_in import let_in
from gateway.oauth.endpoints.http import EndpointRequest, EndpointResponse
from gateway.oauth.errors import OAuthError
from gateway.oauth.keys.sealing import Seal, SealError
from gateway.oauth.models import Clock, digest_token
from gateway.oauth.parameters import read_form
from gateway.oauth.users.upstream import UpstreamProvider

STATE_TTL_S = 600.0
_SEAL = "upstream sign-in"


@dataclass(frozen=True, slots=True)
class _State:
    browser: str
    """Digest of the cookie."""
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    query: str
    """The authorization request to go on with."""
    ends_at: float


class UpstreamSignIn(FlowStep):
    """Redirects users to the upstream provider, and receives them when they come back."""

    methods = frozenset({"GET"})

    def __init__(
        self,
        flow: Flow,
        upstream: UpstreamProvider,
        seal: Seal,
        *,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        super().__init__(flow)
        self._upstream = upstream
        self._seal = seal
        self._wall_clock = wall_clock
        self._random_text = random_text

    async def start(
        self, request: EndpointRequest, requested: AuthorizationRequest
    ) -> EndpointResponse:
        cookie = self._flow.pages.sign_in_cookie
        browser = cookie.read(request.headers) or self._random_text(32)
        state = _State(
            browser=digest_token(browser).hex(),
            nonce=self._random_text(32),
            verifier=self._random_text(32),
            query=requested.query_after_sign_in,
            ends_at=self._wall_clock() + STATE_TTL_S,
        )
        location = await self._upstream.location(
            state=self._close(state),
            nonce=state.nonce,
            verifier=state.verifier,
            prompt=" ".join(sorted(requested.prompt & {"login", "select_account"})),
        )
        return redirect(location, headers=(cookie.set(browser, max_age_s=STATE_TTL_S),))

    async def _respond(self, request: EndpointRequest) -> EndpointResponse:
        flow = self._flow
        response = read_form(request.query)
        state = self._open(response.get("state", ""))
        browser = flow.pages.sign_in_cookie.read(request.headers) or ""
        is_here = hmac.compare_digest(digest_token(browser).hex(), state.browser)
        if not is_here or self._wall_clock() >= state.ends_at:
            raise ExpiredFormError("The sign-in took too long, or was started in another browser.")
        try:
            found = await self._upstream.identify(
                response, nonce=state.nonce, verifier=state.verifier
            )
        except OAuthError:
            flow.metrics.provider.sign_ins.labels("upstream_failed").inc()
            raise
        user = await flow.server.users.welcome(found.username, name=found.name)
        return await let_in(flow, request, user, state.query)

    def _close(self, state: _State) -> str:
        sealed = self._seal.close(msgspec.json.encode(state), name=_SEAL)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def _open(self, state: str) -> _State:
        try:
            sealed = base64.urlsafe_b64decode(state + "=" * (-len(state) % 4))
            return msgspec.json.decode(self._seal.open(sealed, name=_SEAL), type=_State)
        except (binascii.Error, ValueError, SealError):
            raise ExpiredFormError("The sign-in was not started here.") from None
