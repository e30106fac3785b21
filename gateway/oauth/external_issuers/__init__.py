"""Tokens of other issuers: who is asked about a token that is not ours.

What they yield is an `AccessToken` like any other, so it goes through the same cache and
the same checks. Their clients are called `NAME:ID`, which no client of ours can be called:
a foreign client can't pass for one of ours by its id.
"""

from __future__ import annotations

from gateway.oauth.external_issuers.introspection import IntrospectionServers
from gateway.oauth.external_issuers.jwt import JwtIssuers
from gateway.oauth.jose import JwtError, looks_like_jwt, read_jwt
from gateway.oauth.models import AccessToken

__all__ = ["ExternalTokens"]


class ExternalTokens:
    """Looks up tokens that others issued."""

    def __init__(self, issuers: JwtIssuers, servers: IntrospectionServers) -> None:
        self._issuers = issuers
        self._servers = servers

    @property
    def jwt_issuers(self) -> JwtIssuers:
        """The issuers whose JWTs are verified."""
        return self._issuers

    def is_certainly_external(self, access_token: str) -> bool:
        """Whether a token says that one of the known issuers made it: no need to look for it
        among our own."""
        if not self._issuers or not looks_like_jwt(access_token):
            return False
        try:
            return read_jwt(access_token).text("iss") in self._issuers
        except JwtError:
            return False

    async def find(self, access_token: str) -> AccessToken | None:
        """Return the token, None where no issuer vouches for it.

        Raises `IssuerUnavailableError` where an issuer does not respond.
        """
        if self.is_certainly_external(access_token):
            return await self._issuers.find(access_token)
        return await self._servers.find(access_token)
