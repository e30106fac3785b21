"""Errors of the provider, as responses.

One class for each error code: it carries its HTTP status and renders itself. No text
ever holds a secret or a token, and no code ever looks at a text.

RFC 6749 section 5.2 (token endpoint), RFC 6750 section 3 (bearer challenges), RFC 7591
section 3.2.2 (registration), RFC 8707 section 2 (resources).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

REALM = "gateway"
DPOP_ALGORITHMS = "ES256 ES384 EdDSA Ed25519 PS256 RS256"

Headers = tuple[tuple[str, str], ...]


class OAuthError(Exception):
    """A response with an error code."""

    status: ClassVar[int] = 400
    error: ClassVar[str] = "invalid_request"
    default_description: ClassVar[str] = ""
    default_member: ClassVar[str] = ""

    def __init__(
        self,
        description: str = "",
        *,
        reason: str = "",
        headers: Headers = (),
        member: str = "",
    ) -> None:
        self.description = description or self.default_description
        self.reason = reason or self.error
        """Machine-readable, for the access log."""
        self.member = member or self.default_member
        """The parameter that is wrong, where it is one: forms show the error beside its field."""
        self._headers = headers
        super().__init__(self.description)

    @property
    def headers(self) -> Headers:
        """Header fields that belong to the response."""
        return self._headers

    def body(self) -> dict[str, object]:
        """The JSON body (RFC 6749 section 5.2)."""
        return {"error": self.error, "error_description": self.description}


class InvalidRequestError(OAuthError):
    """A parameter is missing, repeated, malformed, or given in a way that is not allowed."""


class InvalidClientError(OAuthError):
    """The client is unknown, its registration has ended, or its secret is wrong: which of
    them is never disclosed."""

    status = 401
    error = "invalid_client"
    default_description = "Client authentication failed."

    @property
    def headers(self) -> Headers:
        """With the challenge that RFC 6749 section 5.2 asks for."""
        return (("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"'), *self._headers)


class UnauthorizedClientError(OAuthError):
    """The client proved who it is, but may not do this."""

    error = "unauthorized_client"
    default_description = "This client may not do this."


class InvalidGrantError(OAuthError):
    """The grant (a code, a refresh token, a token to exchange) is not valid."""

    error = "invalid_grant"
    default_description = "The grant is not valid."


class InvalidTargetError(OAuthError):
    """The resource is unknown, malformed, or none that this client may ask for (RFC 8707
    section 2)."""

    error = "invalid_target"
    default_description = "The resource is not one that this client can get a token for."


class UnsupportedTokenTypeError(OAuthError):
    """Tokens of this kind can't be revoked here (RFC 7009 section 2.2.1)."""

    error = "unsupported_token_type"
    default_description = "This token was issued by someone else, who alone can revoke it."


class InvalidDpopProofError(OAuthError):
    """The DPoP proof of a token request does not hold (RFC 9449 section 5)."""

    error = "invalid_dpop_proof"


class UseDpopNonceError(OAuthError):
    """The proof must hold the nonce that comes with this response (RFC 9449 section 8)."""

    error = "use_dpop_nonce"
    default_description = "A nonce is needed."

    def __init__(self, nonce: str) -> None:
        super().__init__(headers=(("DPoP-Nonce", nonce),))


class UnsupportedGrantTypeError(OAuthError):
    """The grant type is not one that this provider gives."""

    error = "unsupported_grant_type"
    default_description = "This grant type is not supported."


class InvalidScopeError(OAuthError):
    """The scope is unknown, malformed, or more than the client may ask for."""

    error = "invalid_scope"
    default_description = "The scope is not valid for this client."


class InvalidClientMetadataError(OAuthError):
    """A field of a registration is not acceptable (RFC 7591 section 3.2.2)."""

    error = "invalid_client_metadata"


class InvalidRedirectUriError(OAuthError):
    """A redirect URI of a registration is not acceptable (RFC 7591 section 3.2.2)."""

    error = "invalid_redirect_uri"
    default_member = "redirect_uris"


class ClientAlreadyExistsError(OAuthError):
    """The client id is taken, and `fail_if_present` forbids replacing its owner."""

    status = 409
    error = "client_already_exists"
    default_member = "client_id"
    default_description = "A client with this id is already registered."


class ManagedClientError(OAuthError):
    """The client is declared in a configuration, which alone may change it."""

    status = 409
    error = "client_managed"

    def __init__(self, owner: str) -> None:
        super().__init__(
            f"This client is declared in the configuration (clients_owner {owner!r}): change it "
            "there."
        )


class RegistrationDeniedError(OAuthError):
    """Clients can't be registered over HTTP here."""

    status = 403
    error = "access_denied"
    default_description = "Registration is off."


class MethodError(OAuthError):
    """The endpoint does not take this method."""

    status = 405
    default_description = "This endpoint does not take this method."


class TooLargeError(OAuthError):
    """The body is larger than the endpoint takes (RFC 9110 section 15.5.14)."""

    status = 413
    default_description = "The body is too large."


class TooManyRegistrationsError(OAuthError):
    """More clients were registered from this network than the operator allows (RFC 6585)."""

    status = 429
    error = "too_many_registrations"
    default_description = "Too many registrations; try again later."

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(headers=(("Retry-After", str(retry_after_s)),))


class TooManyFailuresError(OAuthError):
    """This client failed to authenticate too often from this address (RFC 6585 section 4)."""

    status = 429
    error = "too_many_attempts"
    default_description = "Too many failed attempts; try again later."

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(headers=(("Retry-After", str(retry_after_s)),))


class TemporarilyUnavailableError(OAuthError):
    """The provider cannot decide now: its store is unavailable, or it is overloaded."""

    status = 503
    error = "temporarily_unavailable"
    default_description = "The provider is temporarily unavailable."

    def __init__(self, *, reason: str = "store_unavailable", retry_after_s: int = 1) -> None:
        super().__init__(reason=reason, headers=(("Retry-After", str(retry_after_s)),))


class BearerError(OAuthError):
    """A protected resource refuses a request (RFC 6750 section 3)."""

    status = 401
    error = "invalid_token"
    scheme: ClassVar[str] = "Bearer"
    resource_metadata = ""
    """URL of the metadata of the resource that refuses, for the challenge (RFC 9728 section
    5.1); set by the caller that knows which resource that is."""
    names_scope: ClassVar[bool] = True
    """Whether the challenge names the scopes of the route: not where none would help."""
    scope = ""
    """The scopes that are needed, for the challenge (RFC 6750 section 3); set likewise, where the
    error does not say itself."""
    takes_bearer = True
    """Whether bearer tokens are accepted there; set likewise."""
    other_challenges: tuple[str, ...] = ()
    """Challenges for other credentials that are accepted there; set likewise."""

    def _challenge(self) -> list[str]:
        return [
            f'realm="{REALM}"',
            f'error="{self.error}"',
            f'error_description="{self.description}"',
        ]

    @property
    def headers(self) -> Headers:
        """With the challenges."""
        others = tuple(("WWW-Authenticate", value) for value in self.other_challenges)
        if not self.takes_bearer:
            return (*others, *self._headers)
        challenge = self._challenge()
        if self.scope:
            challenge.append(f'scope="{self.scope}"')
        if self.resource_metadata:
            challenge.append(f'resource_metadata="{self.resource_metadata}"')
        value = f"{self.scheme} {', '.join(challenge)}"
        return (("WWW-Authenticate", value), *others, *self._headers)


class DpopChallengeError(BearerError):
    """A protected resource refuses a token for want of a proof (RFC 9449 section 7.1)."""

    scheme = "DPoP"

    def __init__(
        self, code: str, description: str, *, nonce: str = "", reason: str = "proof"
    ) -> None:
        headers = (("DPoP-Nonce", nonce),) if nonce else ()
        super().__init__(description, reason=reason, headers=headers)
        self._code = code

    def _challenge(self) -> list[str]:
        return [
            f'realm="{REALM}"',
            f'error="{self._code}"',
            f'error_description="{self.description}"',
            f'algs="{DPOP_ALGORITHMS}"',
        ]


class MissingTokenError(BearerError):
    """No bearer token was given: the challenge is bare, there is no error to speak of
    (RFC 6750 section 3.1)."""

    default_description = "A bearer token is needed."

    def __init__(self) -> None:
        super().__init__(reason="missing")

    def _challenge(self) -> list[str]:
        return [f'realm="{REALM}"']


class MissingCredentialsError(MissingTokenError):
    """None of the credentials that the route accepts was given."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.description = f"{wanted} is missing."


class MalformedTokenError(BearerError):
    """The Authorization header can't be understood, or there is more than one."""

    status = 400
    error = "invalid_request"

    def __init__(self, description: str) -> None:
        super().__init__(description, reason="malformed")


class InvalidTokenError(BearerError):
    """The token is unknown, revoked, or has expired: one response for all of them."""

    default_description = "The token is not valid."

    def __init__(self, *, reason: str = "unknown", description: str = "") -> None:
        super().__init__(description, reason=reason)


class InsufficientScopeError(BearerError):
    """The token is valid but not good for this."""

    status = 403
    error = "insufficient_scope"
    default_description = "The token does not have the scope that is needed."

    def __init__(
        self, scopes: Iterable[str], *, description: str = "", reason: str = "scope"
    ) -> None:
        super().__init__(description, reason=reason)
        self.scope = " ".join(sorted(scopes))


class ClaimDeniedError(InsufficientScopeError):
    """A claim of the token has none of the values that the route asks for. Named is the claim, and
    neither its value nor those that would do."""

    names_scope = False

    def __init__(self, claim: str) -> None:
        super().__init__(
            (), description=f"The claim {claim} of the token does not permit this.", reason="claim"
        )
        self.claim = claim
