"""The JWT bearer grant: a token of another issuer for one of ours (RFC 7523 section 2.1).

A workload shows the token of its platform, and needs no other client authentication: the token says
who it is. One that authenticates as well must be the client that the token stands for.

A client that acts for a user shows the identity assertion of the user's identity provider, and
always authenticates (draft-ietf-oauth-identity-assertion-authz-grant).
"""

from __future__ import annotations

from dataclasses import replace

from gateway.oauth.authenticated import AuthenticatedClient
from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.errors import (
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    InvalidTargetError,
)
from gateway.oauth.grants import GrantRequest
from gateway.oauth.identity_assertions import IdentityAssertions
from gateway.oauth.issuing import IssuedToken, TokenIssuer
from gateway.oauth.parameters import Parameters
from gateway.oauth.policy import JWT_BEARER
from gateway.oauth.workloads.clients import WorkloadClients
from gateway.oauth.workloads.tokens import WorkloadError


class JwtBearerGrant:
    """See `Grant`."""

    grant_type = JWT_BEARER

    def __init__(
        self, issuer: TokenIssuer, workloads: WorkloadClients, identities: IdentityAssertions
    ) -> None:
        self._issuer = issuer
        self._workloads = workloads
        self._identities = identities

    async def identify(
        self, credentials: ClientCredentials, parameters: Parameters
    ) -> AuthenticatedClient | None:
        if not credentials.is_id_alone or self._identities.is_one(parameters.get("assertion", "")):
            return None
        return await self._read(parameters, credentials.client_id)

    async def issue(self, request: GrantRequest) -> IssuedToken:
        client = request.client
        if not request.is_identified:
            client.require_proof()
            if self._identities.is_one(request.parameters.get("assertion", "")):
                return await self._issue_for_user(request)
            client = await self._read(request.parameters, client.client.client_id)
        return await self._issuer.issue(
            client,
            grant_type=self.grant_type,
            scopes=self._issuer.choose_scopes(client, request.parameters.get("scope")),
            audience=self._issuer.choose_audience(client, request.resources),
            confirmation=request.confirmation,
        )

    async def _issue_for_user(self, request: GrantRequest) -> IssuedToken:
        client, scope = request.client, request.parameters.get("scope")
        identity = await self._identities.verify(
            request.parameters["assertion"], client.client.client_id
        )
        if identity.key is not None and request.confirmation.get("jkt") != identity.key:
            raise InvalidGrantError("The assertion is bound to a key, which needs a DPoP proof.")
        if identity.resources and not set(request.resources) <= set(identity.resources):
            raise InvalidTargetError
        if identity.scopes is not None:
            scopes = tuple(name for name in client.client.scopes if name in identity.scopes)
            if not scopes and self._issuer.policy.scopes:
                raise InvalidScopeError("The assertion has no scope that this client may use.")
            client = replace(client, client=replace(client.client, scopes=scopes))
            scope = scope or " ".join(scopes)
        return await self._issuer.issue(
            client,
            grant_type=self.grant_type,
            scopes=self._issuer.choose_scopes(client, scope),
            audience=self._issuer.choose_audience(client, request.resources or identity.resources),
            confirmation=request.confirmation,
            claims={"sub": identity.subject},
            ttl_s=identity.token_ttl_s,
        )

    async def _read(self, parameters: Parameters, client_id: str) -> AuthenticatedClient:
        assertion = parameters.get("assertion")
        if assertion is None:
            raise InvalidRequestError("assertion is missing.")
        try:
            return await self._workloads.authenticate(assertion, client_id)
        except WorkloadError as error:
            raise InvalidGrantError(error.description, reason=error.reason) from None
