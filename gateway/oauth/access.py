"""What a route asks of a token: the verdict of every request, never cached with the token.

Most tokens can be shown by whoever has them, anywhere that their scopes reach. Those that
can't carry a `TokenConstraint`, and cost the look at it; the others don't.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gateway.http.fields import RawHeaders
from gateway.oauth.binding.certificates import certificate_thumbprint
from gateway.oauth.binding.dpop import DpopError, DpopProofs
from gateway.oauth.errors import (
    DpopChallengeError,
    InsufficientScopeError,
    InvalidTokenError,
)
from gateway.oauth.models import AccessToken

_WILDCARD = re.compile(r"\*[^:]*")


class RequestEvidence(Protocol):
    """A request on a protected route, as far as tokens with a restriction need it."""

    @property
    def method(self) -> str:
        """Its method."""

    @property
    def path(self) -> str:
        """Its canonical path."""

    @property
    def routing_host(self) -> str:
        """Its host: lower-case, without port."""

    @property
    def raw_headers(self) -> RawHeaders:
        """Its header fields."""

    @property
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the client proved to hold."""


@dataclass(frozen=True, slots=True)
class TokenConstraint:
    """What keeps a token from being good everywhere, for everybody who has it."""

    audience: frozenset[str] = frozenset()
    """The resources that it is for; empty where it is for the whole gateway."""
    certificate: str | None = None
    """Thumbprint of the certificate that must come with it (RFC 8705 section 3.1)."""
    key: str | None = None
    """Thumbprint of the key that must prove itself with it (RFC 9449 section 6.1)."""


def constraint_of(token: AccessToken, gateway: Collection[str]) -> TokenConstraint | None:
    """The restriction in a token's claims. `gateway` are the names of the gateway as a whole."""
    if not token.claims:
        return None
    audience = read_audience(token)
    confirmation = token.claims.get("cnf") or {}
    certificate, key = confirmation.get("x5t#S256"), confirmation.get("jkt")
    unknown = confirmation.keys() - {"x5t#S256", "jkt"}
    if audience.intersection(gateway):
        audience = frozenset()
    if not audience and not confirmation:
        return None
    if unknown:
        # Bound to something that we can't check: to no certificate and no key there is.
        return TokenConstraint(audience, certificate="", key="")
    return TokenConstraint(audience, certificate, key)


def read_audience(token: AccessToken) -> frozenset[str]:
    """The `aud` claim, one or several."""
    audience = token.claims.get("aud") or ()
    return frozenset([audience] if isinstance(audience, str) else audience)


class CachedToken:
    """A valid token in the cache."""

    __slots__ = ("constraint", "fresh_until", "identity", "scopes", "token", "was_used")

    def __init__(
        self,
        token: AccessToken,
        fresh_until: float,
        identity: bytes,
        constraint: TokenConstraint | None = None,
    ) -> None:
        self.token = token
        self.scopes = frozenset(token.scopes)
        self.constraint = constraint
        """What keeps it from being good everywhere, for everybody who has it."""
        self.fresh_until = fresh_until
        """Monotonic time, seconds: the end of the token or of `cache.ttl`, whichever is first.
        Past for an entry that has left the cache, so that whoever still holds one sees it."""
        self.identity = identity
        """What the data plane tells the upstream about this token, rendered once."""
        self.was_used = False


class Access:
    """What a route asks of a token."""

    __slots__ = (
        "audience", "clients", "is_narrow", "origins", "proofs", "resource_metadata",
        "resources", "scopes",
    )  # fmt: skip

    def __init__(
        self,
        scopes: frozenset[str] = frozenset(),
        clients: frozenset[str] = frozenset(),
        *,
        audience: frozenset[str] = frozenset(),
        resources: frozenset[str] = frozenset(),
        origins: tuple[str, ...] = (),
        resource_metadata: str = "",
        proofs: DpopProofs | None = None,
    ) -> None:
        self.scopes = scopes
        """All of them are needed."""
        self.clients = clients
        """If any are named, the token must belong to one of them."""
        self.audience = audience
        """If any are named, the token must be for one of them, or for the resource itself."""
        self.resources = resources
        """The URLs of this route: what tokens that are for it alone call it (RFC 8707)."""
        self.origins = origins
        """Scheme and authority of the URLs that this route is reached at; `*.` for any name."""
        self.resource_metadata = resource_metadata
        """URL of the metadata of this route, for challenges (RFC 9728 section 5.1)."""
        self.proofs = proofs
        """Verifies DPoP proofs; without it, tokens that are bound to a key are refused."""
        self.is_narrow = bool(clients or audience)
        """Whether more than scopes is asked of every token."""

    def check(self, token: CachedToken, evidence: RequestEvidence | None = None) -> None:
        """The verdict on a token shown with the Bearer scheme.

        Raises `InsufficientScopeError` and `InvalidTokenError` (RFC 6750 section 3.1).
        """
        if self.is_narrow or token.constraint is not None:
            self._check_constraints(token, evidence)
            if token.constraint is not None and token.constraint.key is not None:
                # RFC 9449 section 7.2: without its proof, a bound token is anybody's.
                raise DpopChallengeError("invalid_token", "The token is bound to a key.")
        if not self.scopes <= token.scopes:
            raise InsufficientScopeError(self.scopes)

    def check_proof(self, token: CachedToken, evidence: RequestEvidence) -> None:
        """The verdict on a token shown with the DPoP scheme (RFC 9449 section 7.1).

        Raises `DpopChallengeError`, `InsufficientScopeError` and `InvalidTokenError`.
        """
        self._check_constraints(token, evidence)
        key = token.constraint.key if token.constraint else None
        if key is None or self.proofs is None:
            raise DpopChallengeError("invalid_token", "The token is not bound to a key.")
        try:
            self.proofs.verify_with_token(
                evidence.raw_headers,
                method=evidence.method,
                origins=self._origins_of(evidence),
                path=evidence.path,
                key=key,
            )
        except DpopError as error:
            raise DpopChallengeError(
                error.code, error.description, nonce=error.nonce, reason="proof"
            ) from None
        if not self.scopes <= token.scopes:
            raise InsufficientScopeError(self.scopes)

    def _check_constraints(self, token: CachedToken, evidence: RequestEvidence | None) -> None:
        if self.clients and token.token.client_id not in self.clients:
            raise InsufficientScopeError(
                self.scopes, description="This client may not use this route.", reason="client"
            )
        constraint = token.constraint
        if self.audience:
            if not read_audience(token.token) & (self.audience | self.resources):
                raise InvalidTokenError(reason="audience")
        elif (
            constraint is not None
            and constraint.audience
            and not constraint.audience & self.resources
        ):
            raise InvalidTokenError(reason="audience")
        if constraint is not None and constraint.certificate is not None:
            certificate = evidence.certificate if evidence else None
            shown = certificate_thumbprint(certificate) if certificate else ""
            if not shown or not hmac.compare_digest(
                shown.encode(), constraint.certificate.encode()
            ):
                raise InvalidTokenError(reason="certificate")

    def _origins_of(self, evidence: RequestEvidence) -> tuple[str, ...]:
        # A wildcard route is reached by any name below it; which one matched it already.
        return tuple(_WILDCARD.sub(evidence.routing_host, origin) for origin in self.origins)
