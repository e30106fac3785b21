"""The JWT bearer grant: a token of another issuer for one of ours (RFC 7523 section 2.1).

A workload shows the token of its platform, and needs no other client authentication: the token says
who it is. One that authenticates as well must be the client that the token stands for.
"""

from __future__ import annotations

from gateway.oauth.authenticated import AuthenticatedClient
from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.errors import InvalidGrantError, InvalidRequestError
from gateway.oauth.grants import GrantRequest
from gateway.oauth.issuing import IssuedToken, TokenIssuer
from gateway.oauth.parameters import Parameters
from gateway.oauth.policy import JWT_BEARER
from gateway.oauth.workloads.clients import WorkloadClients
from gateway.oauth.workloads.tokens import WorkloadError


class JwtBearerGrant:
    """See `Grant`."""

    grant_type = JWT_BEARER

    def __init__(self, issuer: TokenIssuer, workloads: WorkloadClients) -> None:
        self._issuer = issuer
        self._workloads = workloads

    async def identify(
        self, credentials: ClientCredentials, parameters: Parameters
    ) -> AuthenticatedClient | None:
        if not credentials.is_id_alone:
            return None
        return await self._read(parameters, credentials.client_id)

    async def issue(self, request: GrantRequest) -> IssuedToken:
        client = request.client
        if not request.is_identified:
            client.require_proof()
            client = await self._read(request.parameters, client.client.client_id)
        return await self._issuer.issue(
            client,
            grant_type=self.grant_type,
            scopes=self._issuer.choose_scopes(client, request.parameters.get("scope")),
            audience=self._issuer.choose_audience(client, request.resources),
            confirmation=request.confirmation,
        )

    async def _read(self, parameters: Parameters, client_id: str) -> AuthenticatedClient:
        assertion = parameters.get("assertion")
        if assertion is None:
            raise InvalidRequestError("assertion is missing.")
        try:
            return await self._workloads.authenticate(assertion, client_id)
        except WorkloadError as error:
            raise InvalidGrantError(error.description, reason=error.reason) from None
