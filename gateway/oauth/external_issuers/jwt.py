"""JWTs of other issuers (RFC 7519, RFC 8725, RFC 9068 section 4): verified by their keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from gateway.clock import has_come, is_over
from gateway.oauth.errors import InvalidTokenError
from gateway.oauth.external_issuers.claims import (
    DEFAULT_NAMES,
    ClaimNames,
    has_required,
    is_other_kind,
    make_token,
    read_audience,
)
from gateway.oauth.jose import Jwt, JwtError, read_jwt
from gateway.oauth.keys.remote import IssuerUnavailableError, KeyLocation, RemoteKeys
from gateway.oauth.models import AccessToken, Clock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JwtIssuer:
    """An issuer whose JWTs are accepted."""

    name: str
    """What its clients are called by: `NAME:ID`."""
    issuer: str
    keys: KeyLocation
    audience: frozenset[str]
    """A token must be for one of these."""
    algorithms: tuple[str, ...]
    clock_skew_s: float
    """How far its clock may be from ours."""
    types: frozenset[str]
    """What `typ` in the header may be, in lower case and without `application/`: `jwt` also stands
    for none. Whatever else an issuer signs is for something else (RFC 8725 section 3.11)."""
    access_tokens: bool
    """Whether its tokens are accepted as access tokens; else only where a rule names it."""
    names: ClaimNames = DEFAULT_NAMES


@dataclass(frozen=True, slots=True)
class VerifiedJwt:
    """A JWT that an issuer signed, for an audience of ours, and whose time has come."""

    issuer: JwtIssuer
    jwt: Jwt = field(repr=False)
    audience: tuple[str, ...]
    """The audience, as its issuer writes it."""
    expires_at: float
    """Unix time, seconds, without the tolerance for clocks."""
    issued_at: float | None


class JwtIssuers:
    """All issuers whose JWTs are accepted."""

    def __init__(
        self,
        issuers: Iterable[JwtIssuer],
        key_source: RemoteKeys,
        *,
        extra_claims: Collection[str] = (),
        wall_clock: Clock = time.time,
    ) -> None:
        """`extra_claims` are kept of each token, for rules and templates."""
        self._issuers: dict[str, list[JwtIssuer]] = {}
        for issuer in issuers:
            self._issuers.setdefault(issuer.issuer, []).append(issuer)
        self._key_source = key_source
        self._extra_claims = extra_claims
        self._wall_clock = wall_clock

    def __contains__(self, issuer: object) -> bool:
        return issuer in self._issuers

    def __len__(self) -> int:
        return len(self._issuers)

    def issuers_of(self, unproven: Jwt) -> Sequence[JwtIssuer]:
        """The entries for the issuer that a JWT names; they differ in their audiences."""
        return self._issuers.get(unproven.text("iss") or "", ())

    def named(self, name: str) -> JwtIssuer | None:
        """The issuer that is called `name`."""
        for issuers in self._issuers.values():
            for issuer in issuers:
                if issuer.name == name:
                    return issuer
        return None

    async def find(self, access_token: str) -> AccessToken | None:
        """The token, if it holds. Raises `IssuerUnavailableError`, and `InvalidTokenError` for one
        that is valid later, which nothing must remember as invalid."""
        try:
            verified = await self.verify(access_token)
        except JwtError as error:
            _log.debug("a JWT of another issuer is rejected: %s", error)
            return None
        issuer, claims = verified.issuer, verified.jwt.claims
        if (
            not issuer.access_tokens
            or is_other_kind(claims, ("token_use", "typ"))
            or not has_required(claims, issuer.names)
        ):
            _log.debug("a JWT of issuer %s is rejected: no access token", issuer.name)
            return None
        issued_at = verified.issued_at
        token = make_token(
            access_token,
            issuer.name,
            claims,
            issued_at=self._wall_clock() if issued_at is None else issued_at,
            expires_at=verified.expires_at + issuer.clock_skew_s,
            names=issuer.names,
            extra=self._extra_claims,
        )
        if token is None:
            _log.debug("a JWT of issuer %s is rejected: no usable client or subject", issuer.name)
        return token

    async def verify(
        self,
        token: str,
        *,
        audience: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> VerifiedJwt:
        """Verify a JWT of one of the issuers: its signature, audience, type and times.

        `audience` and `types`, in lower case, stand in place of those of the issuer, for JWTs that
        are no access tokens. Whose a token is, and what its claims allow, the caller decides.

        Raises `JwtError` with the reason, `IssuerUnavailableError`, and `InvalidTokenError` for a
        token that is valid later.
        """
        issuer = self._choose(read_jwt(token), audience)
        proven = await self.prove(issuer, token)
        named = read_audience(proven.claims, issuer.names)
        if (issuer.audience if audience is None else frozenset(audience)).isdisjoint(named):
            raise JwtError("audience")
        kind = proven.header.get("typ", "jwt")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in (
            types or issuer.types
        ):
            raise JwtError("type")
        return self._check_times(proven, issuer, named)

    async def prove(self, issuer: JwtIssuer, token: str) -> Jwt:
        """Verify the signature of a JWT, and nothing else.

        Raises `JwtError` and `IssuerUnavailableError`.
        """
        try:
            return await self._key_source.verify(issuer.keys, token, issuer.algorithms)
        except IssuerUnavailableError as error:
            raise IssuerUnavailableError(
                error.why, who=f"The JWKS endpoint of issuer {issuer.name}"
            ) from None

    def _choose(self, unproven: Jwt, audience: Collection[str] | None) -> JwtIssuer:
        """Return the issuer of a token: of several of one URL, that whose audience it has."""
        issuers = self._issuers.get(unproven.text("iss") or "")
        if not issuers:
            raise JwtError("issuer")
        if audience is None:
            for issuer in issuers:
                if issuer.audience.intersection(read_audience(unproven.claims, issuer.names)):
                    return issuer
            raise JwtError("audience")
        return issuers[0]

    def _check_times(self, proven: Jwt, issuer: JwtIssuer, named: tuple[str, ...]) -> VerifiedJwt:
        now, skew_s = self._wall_clock(), issuer.clock_skew_s
        expires_at, issued_at = proven.time("exp"), proven.time("iat")
        not_before = proven.time("nbf")
        if expires_at is None or is_over(expires_at, now, skew_s):
            raise JwtError("expired")
        if not has_come(not_before, now, skew_s) or not has_come(issued_at, now, skew_s):
            raise InvalidTokenError(reason="not_yet_valid")
        return VerifiedJwt(issuer, proven, named, expires_at, issued_at)
