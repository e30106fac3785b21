"""The authorization code grant: a client asks in the name of a user who agreed
(RFC 6749 section 4.1, RFC 7636)."""

from __future__ import annotations

from gateway.oauth.authorization.codes import AuthorizationCodes
from gateway.oauth.errors import InvalidGrantError, InvalidRequestError, InvalidTargetError
from gateway.oauth.grants import GrantRequest
from gateway.oauth.issuing import IssuedToken, TokenIssuer
from gateway.oauth.policy import AUTHORIZATION_CODE
from gateway.oauth.refresh import RefreshTokens
from gateway.oauth.users import UserDirectory


class AuthorizationCodeGrant:
    """See `Grant`."""

    grant_type = AUTHORIZATION_CODE

    def __init__(
        self,
        issuer: TokenIssuer,
        refresh_tokens: RefreshTokens,
        codes: AuthorizationCodes,
        users: UserDirectory,
    ) -> None:
        self._refresh_tokens = refresh_tokens
        self._issuer = issuer
        self._codes = codes
        self._users = users

    async def issue(self, request: GrantRequest) -> IssuedToken:
        client, parameters = request.client, request.parameters
        for name in ("code", "code_verifier"):
            if name not in parameters:
                raise InvalidRequestError(f"{name} is missing.")
        redemption = await self._codes.redeem(
            parameters["code"], client.client.client_id, parameters, request.confirmation
        )
        code = redemption.code
        if code.client_created_at != client.client.created_at:
            raise InvalidGrantError("The code was issued to another client.")
        user = await self._users.get(code.username)
        if user is None or user.generation != code.user_generation:
            raise InvalidGrantError("The user no longer exists.")
        # RFC 8707 section 2.2: the token may be for some of what was agreed to.
        if code.audience and not set(request.resources) <= set(code.audience):
            raise InvalidTargetError
        issued = await self._refresh_tokens.begin(
            client,
            grant_type=self.grant_type,
            scopes=[scope for scope in code.scopes if scope in client.client.scopes],
            audience=self._issuer.choose_audience(client, request.resources or code.audience),
            confirmation=request.confirmation,
            claims={"sub": code.username, "username": code.username},
            username=code.username,
        )
        await self._codes.gave(redemption, issued.token, issued.token.family)
        return issued
