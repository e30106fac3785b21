"""The refresh token grant: a new access token without asking the user again (RFC 6749 section
6)."""

from __future__ import annotations

from gateway.oauth.authentication import AuthenticatedClient
from gateway.oauth.errors import InvalidRequestError, InvalidScopeError, InvalidTargetError
from gateway.oauth.grants import GrantRequest
from gateway.oauth.issuing import IssuedToken, TokenIssuer
from gateway.oauth.parameters import split_scope
from gateway.oauth.policy import REFRESH_TOKEN
from gateway.oauth.refresh import Family, RefreshTokens


class RefreshTokenGrant:
    """See `Grant`."""

    grant_type = REFRESH_TOKEN

    def __init__(self, issuer: TokenIssuer, refresh_tokens: RefreshTokens) -> None:
        self._issuer = issuer
        self._refresh_tokens = refresh_tokens

    async def issue(self, request: GrantRequest) -> IssuedToken:
        """See `Grant`. What is asked for wrongly does not use the token up."""
        client, parameters = request.client, request.parameters
        value = parameters.get("refresh_token")
        if value is None:
            raise InvalidRequestError("refresh_token is missing.")
        shown = await self._refresh_tokens.show(client, value, request.confirmation)
        family = shown.family
        issued = await self._issuer.issue(
            client,
            grant_type=self.grant_type,
            scopes=_choose_scopes(client, family, parameters.get("scope")),
            audience=self._choose_audience(client, family, request.resources),
            confirmation=request.confirmation,
            claims=family.claims,
            not_after=family.ends_at,
            family=shown.key,
        )
        return await self._refresh_tokens.renew(client, shown, issued)

    def _choose_audience(
        self, client: AuthenticatedClient, family: Family, resources: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Some of what was granted (RFC 8707 section 2.2), as far as the client may still."""
        if family.audience and not set(resources) <= set(family.audience):
            raise InvalidTargetError
        return self._issuer.choose_audience(client, resources or family.audience)


def _choose_scopes(
    client: AuthenticatedClient, family: Family, scope: str | None
) -> tuple[str, ...]:
    """Some of what was granted, as far as the client may still."""
    left = tuple(name for name in family.scopes if name in client.client.scopes)
    requested = split_scope(scope or "") or left
    if not set(requested) <= set(left) or (family.scopes and not requested):
        raise InvalidScopeError("The scope is more than was granted.")
    return requested
