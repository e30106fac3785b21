"""Parts that the steps of the authorization endpoint have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from gateway.http.fields import header_values
from gateway.metrics import Metrics
from gateway.oauth.authorization.redirects import redirect_location
from gateway.oauth.authorization.request import (
    AuthorizationRefusedError,
    AuthorizationRequest,
    RequestingClient,
)
from gateway.oauth.endpoints.authorize.pages import (
    AuthorizationPages,
    describe_destination,
    redirect,
)
from gateway.oauth.endpoints.http import EndpointRequest, EndpointResponse
from gateway.oauth.errors import OAuthError, TemporarilyUnavailableError
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import StoreUnavailableError
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.users import User, UserSession, UserSessions
from gateway.oauth.users.consents import Consents


class ExpiredFormError(OAuthError):
    """A form came without the token that its page had: it is too old, or from elsewhere."""

    status = 403
    error = "expired_form"
    default_description = (
        "The form has expired or was not created by this site. Nothing was changed."
    )


class NoNavigationError(OAuthError):
    """A script requests a page for users: it could read the form token and send the form, on every
    site that shares a host with the pages."""

    status = 403
    error = "not_a_navigation"
    default_description = "This page can be opened by a browser, not be requested by a script."


class UnconfirmedRedirectError(OAuthError):
    """An error that is not sent to a client that registered itself: its site is wherever
    an attacker wants (RFC 9700 section 4.11.2)."""

    def __init__(self, refused: AuthorizationRefusedError, destination: str) -> None:
        super().__init__(
            f"{refused.description} You are not redirected to {destination}: the application "
            "registered itself, and you have not allowed it anything.",
            reason=refused.error,
        )
        self._code = refused.error

    def body(self) -> dict[str, object]:
        """With the code that the client would have received."""
        return {**super().body(), "error": self._code}


@dataclass(frozen=True, slots=True)
class Flow:
    """The parts that the steps work with."""

    server: AuthorizationServer
    policy: ProviderPolicy
    sessions: UserSessions
    consents: Consents
    pages: AuthorizationPages
    limiter: FailedClientLimiter
    metrics: Metrics

    async def find_session(self, request: EndpointRequest) -> UserSession | None:
        """The session of the browser that asks. Raises `StoreUnavailableError`."""
        return await self.sessions.find(self.pages.session_cookie.read(request.headers))

    async def admit(self, requested: AuthorizationRequest) -> AuthorizationRequest:
        """The request, its client stored if it is one with a document. Raises
        `StoreUnavailableError`."""
        documents, client = self.server.documents, requested.client
        if documents is None or not documents.knows(client.client.client_id):
            return requested
        return replace(requested, client=await documents.keep(client))

    async def give_code(self, requested: AuthorizationRequest, user: User) -> EndpointResponse:
        """The response that the client waits for (RFC 6749 section 4.1.2)."""
        code = await self.server.codes.give(requested, user)
        return self._redirect_back(
            requested.redirect_uri, requested.state, requested.client.client.client_id, code=code
        )

    async def is_redirect_confirmed(
        self, request: EndpointRequest, requester: RequestingClient
    ) -> bool:
        """Whether an operator, or the user in this browser, has anything to do with the client.
        Raises `StoreUnavailableError`."""
        client = requester.client
        if client.metadata.registered_by != "open":
            return True
        session = await self.find_session(request)
        return session is not None and await self.consents.knows(
            session.user.username, client.client, requester.redirect_uri
        )

    def refuse(
        self, requester: RequestingClient, error: AuthorizationRefusedError
    ) -> EndpointResponse:
        """Send an error to the client (RFC 6749 section 4.1.2.1)."""
        return self._redirect_back(
            requester.redirect_uri,
            requester.state,
            requester.client.client.client_id,
            reason=error.error,
            error=error.error,
            error_description=error.description,
        )

    def _redirect_back(
        self,
        redirect_uri: str,
        state: str | None,
        client_id: str,
        *,
        reason: str = "",
        **members: str,
    ) -> EndpointResponse:
        if state is not None:
            members["state"] = state
        # RFC 9207: a client of several providers can distinguish whose response this is.
        members["iss"] = self.policy.issuer
        location = redirect_location(redirect_uri, members.items())
        return redirect(location, reason=reason, client_id=client_id)


class FlowStep(ABC):
    """One path of the authorization endpoint. Its errors are pages, too."""

    methods = frozenset({"GET", "POST"})

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """The response, which is a page or a redirect, whatever happens."""
        try:
            # Browsers that send the field don't let scripts set it (Fetch Metadata).
            if set(header_values(request.headers, b"sec-fetch-mode")) - {b"navigate"}:
                raise NoNavigationError
            return await self._respond(request)
        except StoreUnavailableError as error:
            unavailable = TemporarilyUnavailableError(retry_after_s=error.retry_after_s)
            return self._flow.pages.error(unavailable)
        except OAuthError as error:
            return self._flow.pages.error(error)

    @abstractmethod
    async def _respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""


class AuthorizationStep(FlowStep):
    """A step within an authorization request, which is parsed again."""

    async def _respond(self, request: EndpointRequest) -> EndpointResponse:
        encoded = self._encoded(request)
        requests = self._flow.server.authorization_requests
        requester = await requests.identify_client(encoded, source=request.source)
        try:
            return await self._go_on(request, requests.read(encoded, requester))
        except AuthorizationRefusedError as error:
            if not error.is_users and not await self._flow.is_redirect_confirmed(
                request, requester
            ):
                destination = describe_destination(requester.redirect_uri)
                raise UnconfirmedRedirectError(error, destination) from None
            return self._flow.refuse(requester, error)

    def _encoded(self, request: EndpointRequest) -> str:
        """Return the encoded authorization request."""
        return request.query

    @abstractmethod
    async def _go_on(
        self, request: EndpointRequest, requested: AuthorizationRequest
    ) -> EndpointResponse:
        """Raises `AuthorizationRefusedError`, `OAuthError` and `StoreUnavailableError`."""
