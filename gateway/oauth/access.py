"""Authorizes a token on a route: decided on every request, never cached with the token.

Most tokens are bearer tokens, good wherever their scopes reach. Those that
can't carry a `TokenConstraint`, and cost the look at it; the others don't.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Protocol

from gateway.http.fields import RawHeaders
from gateway.oauth.binding.certificates import certificate_thumbprint
from gateway.oauth.binding.dpop import DpopError, DpopProof, DpopProofs
from gateway.oauth.claim_rules import NO_CLAIMS, ClaimRule, Claims
from gateway.oauth.errors import (
    ClaimDeniedError,
    DpopChallengeError,
    InsufficientScopeError,
    InvalidTokenError,
)
from gateway.oauth.models import AccessToken, Credential

BEARER_ONLY: frozenset[Credential] = frozenset(["bearer"])
_QUOTABLE = re.compile(r"[!#-\[\]-~]*")  # as in a quoted string
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
    """Limits where, and with which key or certificate, a token can be used (`aud`, `cnf`)."""

    audience: frozenset[str] = frozenset()
    """The resources that it is for; empty where it is for the whole gateway."""
    certificate: str | None = None
    """Thumbprint of the certificate that must come with it (RFC 8705 section 3.1)."""
    key: str | None = None
    """Thumbprint of the key that must prove itself with it (RFC 9449 section 6.1)."""
    credential: Credential = "bearer"
    """What stands for it; routes have to accept all but bearer tokens."""


def constraint_of(token: AccessToken, gateway: Collection[str]) -> TokenConstraint | None:
    """The restriction in a token's claims. `gateway` are the names of the gateway as a whole."""
    if token.credential != "bearer":
        return TokenConstraint(credential=token.credential)
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


class Cohort:
    """The cached tokens of one client, which are dropped together, in one step."""

    __slots__ = ("digests", "generation")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        """Of the cache as a whole; another one where the tokens have been dropped."""
        self.digests: set[bytes] = set()


class CachedToken:
    """A valid token in the cache."""

    __slots__ = (
        "claims", "client_id", "cohort", "constraint", "expires_at", "has_rate_limit", "identity",
        "read_at", "scopes", "token", "valid_until", "was_used",
    )  # fmt: skip

    def __init__(
        self,
        token: AccessToken,
        valid_until: float,
        identity: bytes,
        constraint: TokenConstraint | None = None,
        *,
        read_at: float = 0.0,
        cohort: Cohort | None = None,
        claims: Claims = NO_CLAIMS,
    ) -> None:
        self.token = token
        # What every request asks of it, here as well: the class of `token` is not compiled.
        self.client_id = token.client_id
        self.expires_at = token.expires_at
        self.has_rate_limit = token.rate_limit is not None or token.key_limit is not None
        self.scopes = frozenset(token.scopes)
        self.constraint = constraint
        """Limits where, and with which key or certificate, it can be used; None without limits."""
        self.valid_until = valid_until
        """Monotonic time, seconds, at which the token expires. Past for an entry that has left
        the cache, so that a caller that still holds one sees it."""
        self.read_at = read_at
        """Monotonic time, seconds, at which the store was asked."""
        self.cohort = cohort or Cohort(0)
        self.identity = identity
        """Identity header lines for the upstream, rendered once."""
        self.claims = claims
        """The claims that rules and templates of routes name."""
        self.was_used = False


class Access:
    """The requirements of a route for tokens."""

    __slots__ = (
        "any_scopes", "audience", "claim_rules", "clients", "credentials", "is_narrow",
        "needed_scopes", "origins", "prefix", "proofs", "resource_metadata", "resources", "scopes",
    )  # fmt: skip

    def __init__(
        self,
        scopes: frozenset[str] = frozenset(),
        clients: frozenset[str] = frozenset(),
        *,
        any_scopes: tuple[str, ...] = (),
        claim_rules: tuple[ClaimRule, ...] = (),
        audience: frozenset[str] = frozenset(),
        resources: frozenset[str] = frozenset(),
        origins: tuple[str, ...] = (),
        resource_metadata: str = "",
        prefix: str = "\0",
        proofs: DpopProofs | None = None,
        credentials: frozenset[Credential] = BEARER_ONLY,
    ) -> None:
        self.credentials = credentials
        """What clients may authenticate by here."""
        self.scopes = scopes
        """All of them are needed."""
        self.any_scopes = any_scopes
        """If any are named, one of them is needed, too."""
        self.claim_rules = claim_rules
        """All of them must hold."""
        self.needed_scopes = scopes.union(any_scopes[:1])
        """Scopes that are enough, for challenges: of `any_scopes`, the first."""
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
        self.prefix = prefix
        """The path of the resource with a slash at its end, where the route takes all below it."""
        self.proofs = proofs
        """Verifies DPoP proofs; without it, tokens that are bound to a key are refused."""
        self.is_narrow = bool(
            clients or audience or any_scopes or claim_rules or "bearer" not in credentials
        )
        """Whether more than scopes is asked of every token."""

    def metadata_url(self, path: str) -> str:
        """Return the URL of the metadata of what is at a canonical path: clients compare the
        resource that it names with the URL that they called (RFC 9728 section 3.3)."""
        if not path.startswith(self.prefix) or not _QUOTABLE.fullmatch(path):
            return self.resource_metadata
        return self.resource_metadata + path[len(self.prefix.rstrip("/")) :]

    def check(self, token: CachedToken, evidence: RequestEvidence | None = None) -> None:
        """The verdict on a token shown with the Bearer scheme.

        Raises `InsufficientScopeError` and `InvalidTokenError` (RFC 6750 section 3.1).
        """
        if self.is_narrow or token.constraint is not None:
            self._check_constraints(token, evidence)
            if token.constraint is not None and token.constraint.key is not None:
                # RFC 9449 section 7.2: without its proof, a bound token is a plain bearer token.
                raise DpopChallengeError("invalid_token", "The token is bound to a key.")
            self._check_rights(token)
        elif not self.scopes <= token.scopes:
            raise InsufficientScopeError(self.scopes)

    def check_proof(
        self, token: CachedToken, evidence: RequestEvidence
    ) -> Coroutine[None, None, None] | None:
        """The verdict on a token shown with the DPoP scheme (RFC 9449 section 7.1). Where used
        proofs are kept in the store, it also takes what is returned, which raises
        `DpopChallengeError` and `StoreUnavailableError`.

        Raises `DpopChallengeError`, `InsufficientScopeError` and `InvalidTokenError`.
        """
        self._check_constraints(token, evidence)
        key = token.constraint.key if token.constraint else None
        if key is None or self.proofs is None:
            raise DpopChallengeError("invalid_token", "The token is not bound to a key.")
        try:
            proof = self.proofs.verify_with_token(
                evidence.raw_headers,
                method=evidence.method,
                origins=self._origins_of(evidence),
                path=evidence.path,
                key=key,
            )
        except DpopError as error:
            raise error.challenge() from None
        self._check_rights(token)
        return self._use_up(self.proofs, proof) if self.proofs.is_shared else None

    async def _use_up(self, proofs: DpopProofs, proof: DpopProof) -> None:
        try:
            await proofs.use_up(proof)
        except DpopError as error:
            raise error.challenge() from None

    def _check_rights(self, token: CachedToken) -> None:
        """Check scopes and claims."""
        if not self.scopes <= token.scopes:
            raise InsufficientScopeError(self.needed_scopes)
        if self.any_scopes and token.scopes.isdisjoint(self.any_scopes):
            raise InsufficientScopeError(
                self.needed_scopes,
                description=f"The token needs one of the scopes {', '.join(self.any_scopes)}.",
            )
        for rule in self.claim_rules:
            if not rule.holds(token.claims):
                raise ClaimDeniedError(str(rule.path))

    def _check_constraints(self, token: CachedToken, evidence: RequestEvidence | None) -> None:
        if token.token.credential not in self.credentials:
            raise InvalidTokenError(reason="credential")
        if self.clients and token.token.client_id not in self.clients:
            raise InsufficientScopeError(
                self.scopes, description="This client may not use this route.", reason="client"
            )
        constraint = token.constraint
        if self.audience and token.token.credential == "bearer":
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
