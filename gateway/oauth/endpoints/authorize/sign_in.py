"""Signing in by name and password, on a page of ours."""

from __future__ import annotations

from collections.abc import Callable

from gateway.addresses import source_of
from gateway.oauth.authorization.request import AuthorizationRequest
from gateway.oauth.credentials import random_text
from gateway.oauth.endpoints.authorize.flow import AuthorizationStep, Flow
from gateway.oauth.endpoints.authorize.pages import SIGN_IN, redirect
from gateway.oauth.endpoints.http import EndpointRequest, EndpointResponse, is_type
from gateway.oauth.parameters import FORM, Parameters, read_form
from gateway.oauth.sign_in_limits import SignInLimits
from gateway.oauth.users import User
from gateway.web.csrf import FIELD

EXPIRED = "The page was open for too long. Please sign in once more."
WRONG = "The username or the password is wrong."
LIMITED = "Too many attempts. Please try again later."


class SignInEndpoint(AuthorizationStep):
    """Shows the sign-in page, and takes its form."""

    methods = frozenset({"POST"})

    def __init__(self, flow: Flow, *, random_text: Callable[[int], str] = random_text) -> None:
        super().__init__(flow)
        self._random_text = random_text
        self._limits = SignInLimits(
            flow.server.store.records,
            "user",
            lambda: flow.limiter.limit,
            wall_clock=flow.server.now,
        )

    async def start(
        self, request: EndpointRequest, requested: AuthorizationRequest
    ) -> EndpointResponse:
        return self._flow.pages.sign_in(requested, self._browser(request))

    def _browser(self, request: EndpointRequest) -> str:
        """Return what the form is bound to before there is a session: else another site could
        sign a person in as whom it likes."""
        return self._flow.pages.sign_in_cookie.read(request.headers) or self._random_text(32)

    async def _go_on(
        self, request: EndpointRequest, requested: AuthorizationRequest
    ) -> EndpointResponse:
        flow, pages = self._flow, self._flow.pages
        form = read_form(request.body) if is_type(FORM, request) else {}
        cookie = pages.sign_in_cookie.read(request.headers)
        if cookie is None or not pages.tokens.is_valid(form.get(FIELD), cookie, SIGN_IN):
            return pages.sign_in(
                requested, self._browser(request), status=403, notice=EXPIRED, reason="expired_form"
            )
        username = form.get("username", "").strip()
        missing = [name for name in ("username", "password") if not form.get(name, "").strip()]
        if missing:
            return pages.sign_in(requested, cookie, status=400, missing=missing, username=username)
        user = await self._verify(request, username, form)
        if isinstance(user, int):
            flow.metrics.provider.sign_ins.labels("limited").inc()
            return pages.sign_in(
                requested, cookie, status=429, notice=LIMITED, username=username,
                reason="too_many_attempts", headers=(("Retry-After", str(user)),),
            )  # fmt: skip
        if user is None:
            flow.metrics.provider.sign_ins.labels("failed").inc()
            return pages.sign_in(
                requested,
                cookie,
                status=403,
                notice=WRONG,
                username=username,
                reason="sign_in_failed",
            )
        return await let_in(flow, request, user, requested.query_after_sign_in)

    async def _verify(
        self, request: EndpointRequest, username: str, form: Parameters
    ) -> User | int | None:
        """The user; None where name or password is wrong; the seconds to wait after too many
        failures."""
        users, network = self._flow.server.users, source_of(request.source)
        return await self._limits.attempt(
            username, network, lambda: users.verify(username, form["password"], source=network)
        )


async def let_in(flow: Flow, request: EndpointRequest, user: User, query: str) -> EndpointResponse:
    """Begin a session and go on with the authorization request. Raises `StoreUnavailableError`."""
    pages = flow.pages
    old = pages.session_cookie.read(request.headers)
    session = await flow.sessions.begin(user, old_secret=old)
    flow.metrics.provider.sign_ins.labels("ok").inc()
    cookie = pages.session_cookie.set(session.secret, max_age_s=flow.sessions.ttl_s)
    return redirect(
        f"{flow.policy.authorize_path}?{query}", headers=(cookie, pages.sign_in_cookie.clear())
    )
