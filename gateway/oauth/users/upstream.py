"""An upstream OpenID provider that knows the users: we are its client.

OpenID Connect Core 1.0 (code flow with PKCE, section 3.1), Discovery 1.0, RFC 9700.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

from gateway.clock import has_come, is_over
from gateway.oauth.errors import OAuthError
from gateway.oauth.external_issuers.claims import qualify
from gateway.oauth.issuer_metadata import FetchError, FetchJson, discover, read_endpoint
from gateway.oauth.jose import Jwt, JwtError
from gateway.oauth.keys.remote import IssuerUnavailableError, RemoteKeys
from gateway.oauth.models import Clock

PostForm = Callable[[str, Mapping[str, str], Mapping[str, str]], Awaitable[object]]
"""Sends a form with headers, for JSON. Raises `FetchError`."""

REFRESH_AFTER_S = 3600.0
RETRY_AFTER_S = 5.0
MAX_SUBJECT_CHARS = 200
EMAIL = "email"

_log = logging.getLogger(__name__)


class IdentityProviderError(OAuthError):
    """The upstream provider does not respond, or not as it should."""

    status = 502
    error = "upstream_failed"
    default_description = "The sign-in service does not respond as it should."


class UpstreamRefusedError(OAuthError):
    """The upstream provider did not sign a user in."""

    status = 403
    error = "sign_in_refused"
    default_description = "The sign-in service rejected the sign-in."


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Settings of an upstream provider."""

    name: str
    """What its users are called by: `NAME:SUBJECT`."""
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    scopes: tuple[str, ...]
    subject_claim: str
    algorithms: tuple[str, ...]
    clock_skew_s: float
    require_verified_email: bool
    """Whether an ID token without `email_verified` has no address; with `false`, it never has."""
    allowed_domains: tuple[str, ...]
    """Each of these lists that names any restricts who may sign in."""
    allowed_groups: tuple[str, ...]
    allowed_users: tuple[str, ...]
    groups_claim: str


@dataclass(frozen=True, slots=True)
class UpstreamUser:
    """The user who signed in there."""

    username: str
    name: str


@dataclass(frozen=True, slots=True)
class _Endpoints:
    authorization: str
    token: str
    jwks_uri: str
    sends_iss: bool
    takes_basic: bool


class UpstreamProvider:
    """Redirects users there, and identifies those who come back."""

    def __init__(
        self,
        settings: UpstreamSettings,
        fetch: FetchJson,
        post_form: PostForm,
        key_source: RemoteKeys,
        *,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._settings = settings
        self._fetch = fetch
        self._post_form = post_form
        self._key_source = key_source
        self._clock = clock
        self._wall_clock = wall_clock
        self._endpoints: _Endpoints | None = None
        self._found_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def location(self, *, state: str, nonce: str, verifier: str, prompt: str = "") -> str:
        """Return the URL to redirect the browser to. Raises `IdentityProviderError`."""
        endpoints, settings = await self._discover(), self._settings
        digest = hashlib.sha256(verifier.encode()).digest()
        parameters = {
            "response_type": "code",
            "client_id": settings.client_id,
            "redirect_uri": settings.redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *settings.scopes))),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **({"prompt": prompt} if prompt else {}),
        }
        joint = "&" if "?" in endpoints.authorization else "?"
        return f"{endpoints.authorization}{joint}{urlencode(parameters)}"

    async def identify(
        self, response: Mapping[str, str], *, nonce: str, verifier: str
    ) -> UpstreamUser:
        """Identify the user from the parameters that the browser brought back.

        Raises `IdentityProviderError` and `UpstreamRefusedError`.
        """
        endpoints, settings = await self._discover(), self._settings
        given_issuer = response.get("iss")
        # RFC 9207 section 2.4: a response of another server, mixed in.
        if given_issuer != settings.issuer and (given_issuer is not None or endpoints.sends_iss):
            raise UpstreamRefusedError
        if "code" not in response:
            raise UpstreamRefusedError(reason="upstream_refused")
        form = {
            "grant_type": "authorization_code",
            "code": response["code"],
            "redirect_uri": settings.redirect_uri,
            "code_verifier": verifier,
        }
        headers: dict[str, str] = {}
        if endpoints.takes_basic:
            headers["Authorization"] = _basic(settings)
        else:
            form |= {"client_id": settings.client_id, "client_secret": settings.client_secret}
        try:
            reply = await self._post_form(endpoints.token, form, headers)
        except FetchError as error:
            _log.warning("token endpoint of %s failed: %s", settings.issuer, error)
            raise IdentityProviderError from None
        token = reply.get("id_token") if isinstance(reply, dict) else None
        if not isinstance(token, str):
            raise IdentityProviderError
        return self._accept(await self._verify(token, endpoints.jwks_uri), nonce)

    async def _verify(self, token: str, jwks_uri: str) -> Jwt:
        try:
            return await self._key_source.verify(jwks_uri, token, self._settings.algorithms)
        except JwtError as error:
            _log.warning("invalid ID token from %s: %s", self._settings.issuer, error)
            raise IdentityProviderError from None
        except IssuerUnavailableError:
            raise IdentityProviderError from None

    def _accept(self, token: Jwt, nonce: str) -> UpstreamUser:
        """OpenID Connect Core section 3.1.3.7."""
        settings, now = self._settings, self._wall_clock()
        skew_s = settings.clock_skew_s
        try:
            expires_at, issued_at = token.time("exp"), token.time("iat")
            not_before = token.time("nbf")
        except JwtError as error:
            _log.warning("an id token of %s is not usable: %s", settings.issuer, error)
            raise IdentityProviderError from None
        audience = token.audience
        is_good = (
            token.text("iss") == settings.issuer
            and settings.client_id in audience
            and (token.text("azp") or settings.client_id) == settings.client_id
            and (len(audience) == 1 or token.text("azp") is not None)
            and expires_at is not None
            and not is_over(expires_at, now, skew_s)
            and issued_at is not None
            and has_come(issued_at, now, skew_s)
            and has_come(not_before, now, skew_s)
            and hmac.compare_digest((token.text("nonce") or "").encode(), nonce.encode())
        )
        if not is_good:
            _log.warning(
                "ID token from %s rejected: wrong audience, nonce or time", settings.issuer
            )
            raise IdentityProviderError
        email = _read_email(token, may_be_unverified=not settings.require_verified_email)
        claim = settings.subject_claim
        subject = email if claim == EMAIL else token.text(claim)
        if subject is None and claim == EMAIL and token.text(EMAIL):
            raise UpstreamRefusedError(
                "The sign-in service has not verified your e-mail address.",
                reason="email_not_verified",
            )
        username = qualify(settings.name, subject or "")
        if not subject or len(username) - len(settings.name) > MAX_SUBJECT_CHARS + 1:
            _log.warning("ID token from %s rejected: no usable %s", settings.issuer, claim)
            raise IdentityProviderError
        if not _may_sign_in(settings, token, subject, email):
            raise UpstreamRefusedError("You may not sign in here.", reason="user_not_allowed")
        return UpstreamUser(username, token.text("name") or "")

    async def _discover(self) -> _Endpoints:
        async with self._lock:
            now = self._clock()
            is_fresh = now - self._found_at < REFRESH_AFTER_S
            if not is_fresh and now - self._tried_at >= RETRY_AFTER_S:
                self._tried_at = now
                try:
                    self._endpoints = await self._read_discovery()
                    self._found_at = now
                except FetchError as error:
                    # What was found before goes on being used.
                    _log.warning("discovery of %s failed: %s", self._settings.issuer, error)
            if self._endpoints is None:
                raise IdentityProviderError
            return self._endpoints

    async def _read_discovery(self) -> _Endpoints:
        """Raises `FetchError`."""
        found = await discover(self._fetch, self._settings.issuer)
        methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return _Endpoints(
            authorization=read_endpoint(found, "authorization_endpoint"),
            token=read_endpoint(found, "token_endpoint"),
            jwks_uri=read_endpoint(found, "jwks_uri"),
            sends_iss=found.get("authorization_response_iss_parameter_supported") is True,
            takes_basic=not isinstance(methods, list) or "client_secret_basic" in methods,
        )


def _read_email(token: Jwt, *, may_be_unverified: bool) -> str | None:
    """The verified address, in lower case (OpenID Connect Core section 5.1): in another case it
    is the same mailbox nearly everywhere, and must not be another user."""
    email, verified = token.text(EMAIL), token.claims.get("email_verified")
    if verified is None and may_be_unverified:
        verified = True
    # Some providers write their booleans as text.
    is_verified = verified is True or verified == "true"
    return email.lower() if email and is_verified else None


def _may_sign_in(settings: UpstreamSettings, token: Jwt, subject: str, email: str | None) -> bool:
    """Whether the user is in each of the lists that name any."""
    if settings.allowed_domains:
        domains = {(token.text("hd") or "").lower(), (email or "").rpartition("@")[2]}
        if domains.isdisjoint(map(str.lower, settings.allowed_domains)):
            return False
    if settings.allowed_groups:
        groups = token.claims.get(settings.groups_claim)
        given = [groups] if isinstance(groups, str) else groups
        if not isinstance(given, list) or not any(one in settings.allowed_groups for one in given):
            return False
    if settings.allowed_users:
        allowed = settings.allowed_users
        if settings.subject_claim == EMAIL:
            allowed = tuple(map(str.lower, allowed))
        return subject in allowed
    return True


def _basic(settings: UpstreamSettings) -> str:
    pair = f"{quote_plus(settings.client_id)}:{quote_plus(settings.client_secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
