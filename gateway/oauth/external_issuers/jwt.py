"""JWTs of other issuers (RFC 7519, RFC 8725, RFC 9068 section 4): verified by their keys."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.clock import has_come, is_over
from gateway.oauth.errors import InvalidTokenError
from gateway.oauth.external_issuers.claims import make_token
from gateway.oauth.jose import Jwt, JwtError, read_jwt
from gateway.oauth.keys.remote import IssuerUnavailableError, RemoteKeys
from gateway.oauth.models import AccessToken, Clock

_TYPES = frozenset({"at+jwt", "jwt"})
"""What an access token may call itself (RFC 9068 section 4), or nothing. Whatever else is signed by
an issuer is for something else (RFC 8725 section 3.11)."""


@dataclass(frozen=True, slots=True)
class JwtIssuer:
    """An issuer whose JWTs are accepted."""

    name: str
    """What its clients are called by: `NAME:ID`."""
    issuer: str
    jwks_uri: str
    audience: frozenset[str]
    """A token must be for one of these."""
    algorithms: tuple[str, ...]
    clock_skew_s: float
    """How far its clock may be from ours."""
    access_tokens: bool
    """Whether its tokens are accepted as access tokens; else only where a rule names it."""


class JwtIssuers:
    """All issuers whose JWTs are accepted."""

    def __init__(
        self, issuers: Iterable[JwtIssuer], key_source: RemoteKeys, *, wall_clock: Clock = time.time
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._key_source = key_source
        self._wall_clock = wall_clock

    def __contains__(self, issuer: object) -> bool:
        return issuer in self._issuers

    def __len__(self) -> int:
        return len(self._issuers)

    def issuer_of(self, unproven: Jwt) -> JwtIssuer | None:
        """The issuer that a JWT names."""
        return self._issuers.get(unproven.text("iss") or "")

    def named(self, name: str) -> JwtIssuer | None:
        """The issuer that is called `name`."""
        return next((one for one in self._issuers.values() if one.name == name), None)

    async def prove(self, issuer: JwtIssuer, token: str) -> Jwt:
        """The parts of a JWT that an issuer signed; nothing that it says is checked.

        Raises `JwtError` and `IssuerUnavailableError`.
        """
        try:
            return await self._key_source.verify(issuer.jwks_uri, token, issuer.algorithms)
        except IssuerUnavailableError as error:
            raise IssuerUnavailableError(
                error.why, who=f"The JWKS endpoint of issuer {issuer.name}"
            ) from None

    async def find(self, access_token: str) -> AccessToken | None:
        """The token, if it holds. Raises `IssuerUnavailableError`, and `InvalidTokenError` for one
        that is valid later, which nothing must remember as invalid."""
        try:
            issuer = self.issuer_of(read_jwt(access_token))
            if issuer is None or not issuer.access_tokens:
                return None
            return self._accept(access_token, await self.prove(issuer, access_token), issuer)
        except JwtError:
            return None

    def _accept(self, access_token: str, proven: Jwt, issuer: JwtIssuer) -> AccessToken | None:
        now, skew_s = self._wall_clock(), issuer.clock_skew_s
        expires_at, issued_at = proven.time("exp"), proven.time("iat")
        not_before = proven.time("nbf")
        kind = str(proven.header.get("typ", "jwt")).lower().removeprefix("application/")
        is_good = (
            expires_at is not None
            and not is_over(expires_at, now, skew_s)
            and proven.text("iss") == issuer.issuer
            and bool(issuer.audience.intersection(proven.audience))
            and kind in _TYPES
        )
        if not is_good or expires_at is None:
            return None
        if not has_come(not_before, now, skew_s) or not has_come(issued_at, now, skew_s):
            raise InvalidTokenError(reason="not_yet_valid")
        return make_token(
            access_token,
            issuer.name,
            proven.claims,
            issued_at=now if issued_at is None else issued_at,
            expires_at=expires_at + skew_s,
        )
