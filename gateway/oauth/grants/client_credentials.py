"""The client credentials grant: a client asks in its own name (RFC 6749 section 4.4)."""

from __future__ import annotations

from gateway.oauth.grants import GrantRequest
from gateway.oauth.issuing import IssuedToken, TokenIssuer
from gateway.oauth.policy import CLIENT_CREDENTIALS


class ClientCredentialsGrant:
    """See `Grant`."""

    grant_type = CLIENT_CREDENTIALS

    def __init__(self, issuer: TokenIssuer) -> None:
        self._issuer = issuer

    async def issue(self, request: GrantRequest) -> IssuedToken:
        return await self._issuer.issue(
            request.client,
            grant_type=self.grant_type,
            scopes=self._issuer.choose_scopes(request.client, request.parameters.get("scope")),
            audience=self._issuer.choose_audience(request.client, request.resources),
            confirmation=request.confirmation,
        )
