"""`/authorize`: where clients send users (RFC 6749 section 3.1), and the consent form."""

from __future__ import annotations

from typing import ClassVar, Protocol

from gateway.oauth.authorization.request import (
    PARAMETERS,
    AuthorizationRefusedError,
    AuthorizationRequest,
)
from gateway.oauth.endpoints.authorize.flow import (
    AuthorizationStep,
    ExpiredFormError,
    Flow,
    FlowStep,
)
from gateway.oauth.endpoints.authorize.pages import CONSENT, SIGN_OUT, redirect
from gateway.oauth.endpoints.http import (
    EndpointRequest,
    EndpointResponse,
    Operations,
    ProviderOperation,
    is_type,
)
from gateway.oauth.errors import InvalidRequestError
from gateway.oauth.parameters import FORM, read_form
from gateway.oauth.users import UserSession
from gateway.web.csrf import FIELD


class SignInStarter(Protocol):
    """Starts the sign-in: on a page of ours, or at an upstream provider."""

    async def start(
        self, request: EndpointRequest, requested: AuthorizationRequest
    ) -> EndpointResponse:
        """The first page of it, or where to find it."""


class AuthorizeEndpoint(AuthorizationStep):
    """Takes authorization requests."""

    operations: ClassVar[Operations] = {
        "GET": ProviderOperation(
            "Ask a user to sign in and to allow something (RFC 6749, RFC 7636)",
            query=PARAMETERS,
            pages={
                200: "A page: sign in, or allow.",
                303: "Back to the client with `code` or `error`, `state`, `iss`.",
                400: "A page: the client or its address is wrong.",
                503: "A page: the store does not respond.",
            },
        ),
        "POST": ProviderOperation("Ask the same with a form", pages={303: "To the page by GET."}),
    }
    methods = frozenset(operations)

    def __init__(self, flow: Flow, sign_in: SignInStarter) -> None:
        super().__init__(flow)
        self._sign_in = sign_in

    def _encoded(self, request: EndpointRequest) -> str:
        if request.method == "GET":
            return request.query
        try:
            return request.body.decode("ascii") if is_type(FORM, request) else ""
        except UnicodeDecodeError:
            raise InvalidRequestError("The request is not form-encoded.") from None

    async def _go_on(
        self, request: EndpointRequest, requested: AuthorizationRequest
    ) -> EndpointResponse:
        flow, prompt = self._flow, requested.prompt
        if request.method == "POST":
            # The form came from the client's site, and browsers leave our cookies out there.
            return redirect(f"{flow.policy.authorize_path}?{requested.query}")
        session = await flow.find_session(request)
        if session is not None and not prompt & {"login", "select_account"}:
            return await self._request_consent(requested, session)
        if "none" in prompt:
            raise AuthorizationRefusedError("login_required", "No user is signed in.")
        return await self._sign_in.start(request, requested)

    async def _request_consent(
        self, requested: AuthorizationRequest, session: UserSession
    ) -> EndpointResponse:
        flow = self._flow
        requested = await flow.admit(requested)
        if "consent" not in requested.prompt and await self._is_agreed(requested, session):
            return await flow.give_code(requested, session.user)
        if "none" in requested.prompt:
            raise AuthorizationRefusedError("consent_required", "The user's consent is required.")
        return flow.pages.consent(requested, session)

    async def _is_agreed(self, requested: AuthorizationRequest, session: UserSession) -> bool:
        client = requested.client
        if client.metadata.skip_consent:
            return True
        return requested.may_go_unseen and await self._flow.consents.cover(
            session.user.username,
            client.client,
            requested.scopes,
            requested.audience,
            redirect_uri=requested.redirect_uri,
        )


class ConsentEndpoint(AuthorizationStep):
    """Takes the response of the consent page."""

    methods = frozenset({"POST"})

    async def _go_on(
        self, request: EndpointRequest, requested: AuthorizationRequest
    ) -> EndpointResponse:
        flow = self._flow
        form = read_form(request.body) if is_type(FORM, request) else {}
        session = await flow.find_session(request)
        if session is None:
            # It expired while the page was open: start again.
            return redirect(f"{flow.policy.authorize_path}?{requested.query}")
        purpose = f"{CONSENT}?{requested.query}"
        if not flow.pages.tokens.is_valid(form.get(FIELD), session.secret, purpose):
            raise ExpiredFormError
        if form.get("decision") != "allow":
            raise AuthorizationRefusedError(
                "access_denied", "The user denied the request.", is_users=True
            )
        requested = await flow.admit(requested)
        await flow.consents.remember(
            session.user.username,
            requested.client.client,
            requested.scopes,
            requested.audience,
            redirect_uri=requested.redirect_uri,
        )
        return await flow.give_code(requested, session.user)


class SignOutEndpoint(FlowStep):
    """Ends a session."""

    async def _respond(self, request: EndpointRequest) -> EndpointResponse:
        flow, pages = self._flow, self._flow.pages
        session = await flow.find_session(request)
        if session is None:
            return pages.sign_out(headers=(pages.session_cookie.clear(),))
        if request.method == "GET":
            return pages.sign_out(session)
        form = read_form(request.body) if is_type(FORM, request) else {}
        if not pages.tokens.is_valid(form.get(FIELD), session.secret, SIGN_OUT):
            raise ExpiredFormError
        await flow.sessions.end(session.secret)
        return pages.sign_out(headers=(pages.session_cookie.clear(),))
