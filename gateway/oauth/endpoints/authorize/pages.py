"""The pages that users see: sign in, consent, sign out, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from gateway.oauth.authorization.redirects import is_claimed_by_a_site
from gateway.oauth.authorization.request import AuthorizationRequest
from gateway.oauth.client_documents import document_host
from gateway.oauth.endpoints.http import NO_STORE, EndpointResponse, Headers
from gateway.oauth.errors import OAuthError
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.users import UserSession
from gateway.web.assets import Asset, load_stylesheet
from gateway.web.cookies import SecretCookie
from gateway.web.csrf import FIELD, FormTokens
from gateway.web.headers import csp_source, page_headers
from gateway.web.templating import Pages

SIGN_IN = "/sign-in"
CONSENT = "/consent"
SIGN_OUT = "/sign-out"
CALLBACK = "/callback"

_TITLES = {
    "expired_form": "This form has expired",
    429: "Too many attempts",
    503: "Not available for the moment",
}


@dataclass(frozen=True, slots=True)
class Branding:
    """Title, logo and words for scopes, as the operator has configured them."""

    title: str = ""
    """The name at the top; empty for the host of the issuer."""
    logo: Asset | None = None
    scopes: Mapping[str, str] = field(default_factory=dict)
    """What scopes permit, in words for users."""


class AuthorizationPages:
    """Renders the pages, with the cookies and form tokens that belong to them."""

    def __init__(self, policy: ProviderPolicy, tokens: FormTokens, branding: Branding) -> None:
        is_secure = policy.issuer.startswith("https:")
        self._policy = policy
        self.path = policy.authorize_path
        self.stylesheet = load_stylesheet()
        self.stylesheet_path = f"{self.path}/{self.stylesheet.name}"
        self.logo = branding.logo
        self.logo_path = f"{self.path}/{branding.logo.name}" if branding.logo else ""
        self._descriptions = branding.scopes
        self.session_cookie = SecretCookie("gateway_session", is_secure)
        self.sign_in_cookie = SecretCookie("gateway_sign_in", is_secure)
        self.tokens = tokens
        self._pages = Pages(
            __package__,
            shared={
                "product": branding.title or urlsplit(policy.issuer).netloc,
                "logo": self.logo_path,
                "stylesheet": self.stylesheet_path,
                "token_field": FIELD,
            },
        )

    def sign_in(
        self,
        requested: AuthorizationRequest,
        cookie: str,
        *,
        status: int = 200,
        notice: str = "",
        missing: Iterable[str] = (),
        username: str = "",
        reason: str = "",
        headers: Headers = (),
    ) -> EndpointResponse:
        """Render the sign-in page. `cookie` is what the browser has, or gets with this page."""
        values = {
            "client_name": requested.client.client.client_name,
            "action": f"{self.path}{SIGN_IN}?{requested.query}",
            "form_token": self.tokens.make(cookie, SIGN_IN),
            "notice": notice,
            "missing": list(missing),
            "username": username or requested.login_hint,
        }
        headers = (self.sign_in_cookie.set(cookie), *headers)
        return self._page(
            "sign_in.html", values, status, requested=requested, reason=reason, headers=headers
        )

    def consent(self, requested: AuthorizationRequest, session: UserSession) -> EndpointResponse:
        """Do you allow this?"""
        client = requested.client
        switch = [("prompt", "login")]
        values = {
            "client_name": client.client.client_name,
            "client_uri": client.metadata.client_uri or "",
            "username": session.user.username,
            "scopes": requested.scopes,
            "tools": self._describe_tools(requested),
            "descriptions": self._descriptions,
            "audience": requested.audience,
            "destination": describe_destination(requested.redirect_uri),
            "client_host": document_host(client.client.client_id),
            "is_self_registered": client.metadata.registered_by == "open",
            "is_local": client.is_public and not is_claimed_by_a_site(requested.redirect_uri),
            "switch_account": f"{self.path}?{requested.query_after_sign_in}&{urlencode(switch)}",
            "action": f"{self.path}{CONSENT}?{requested.query}",
            "form_token": self.tokens.make(session.secret, f"{CONSENT}?{requested.query}"),
        }
        return self._page("consent.html", values, 200, requested=requested)

    def _describe_tools(self, requested: AuthorizationRequest) -> dict[str, list[str]]:
        """Describe what the requested scopes allow to call, by scope; by no scope, what needs
        none."""
        tools: dict[str, list[str]] = {}
        for tool in self._policy.tools_of(requested.audience):
            if set(tool.scopes) <= set(requested.scopes):
                for scope in tool.scopes or ("",):
                    tools.setdefault(scope, []).append(tool.description)
        return tools

    def sign_out(
        self, session: UserSession | None = None, *, headers: Headers = ()
    ) -> EndpointResponse:
        """Render the sign-out page; without a session, it says that the user is signed out."""
        values = {
            "username": session.user.username if session else "",
            "action": f"{self.path}{SIGN_OUT}",
            "form_token": self.tokens.make(session.secret, SIGN_OUT) if session else "",
        }
        return self._page("sign_out.html", values, 200, headers=headers)

    def error(self, error: OAuthError) -> EndpointResponse:
        """Render an error that cannot be sent to the client."""
        title = _TITLES.get(error.error) or _TITLES.get(error.status, "This does not work")
        code = error.body()["error"]
        values = {"title": title, "message": error.description, "code": code}
        return self._page(
            "error.html", values, error.status, reason=error.reason, headers=error.headers
        )

    def _page(
        self,
        template: str,
        values: dict[str, Any],
        status: int,
        *,
        requested: AuthorizationRequest | None = None,
        reason: str = "",
        headers: Headers = (),
    ) -> EndpointResponse:
        # A form ends, over some redirects, at the client: browsers ask the policy about that.
        form_action = [csp_source(requested.redirect_uri)] if requested else []
        return EndpointResponse(
            status,
            (*page_headers(form_action=form_action), *headers),
            self._pages.render(template, values),
            reason,
            requested.client.client.client_id if requested else "",
        )


def redirect(
    location: str, *, headers: Headers = (), reason: str = "", client_id: str = ""
) -> EndpointResponse:
    """Send a browser on. By 303: it must not send a form, which may hold a password, once more
    (RFC 9700 section 4.12)."""
    fields = (("Location", location), ("Referrer-Policy", "no-referrer"), *NO_STORE, *headers)
    return EndpointResponse(303, fields, b"", reason, client_id)


def describe_destination(redirect_uri: str) -> str:
    """Format the destination of a redirect URI for display."""
    parts = urlsplit(redirect_uri)
    if parts.scheme == "https":
        return parts.netloc
    return "this device" if parts.scheme == "http" else f"an application ({parts.scheme})"
