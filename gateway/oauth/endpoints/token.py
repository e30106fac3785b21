"""The token endpoint (RFC 6749 section 3.2)."""

from __future__ import annotations

from gateway.oauth.endpoints.messages import EndpointRequest, EndpointResponse, answer
from gateway.oauth.endpoints.reading import CREDENTIALS, read_authenticated
from gateway.oauth.errors import InvalidRequestError
from gateway.oauth.grants import GrantRequest
from gateway.oauth.parameters import read_repeated
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.server import AuthorizationServer

_OUTSIDE_THE_FORM = (*CREDENTIALS, "grant_type", "scope")
_REPEATABLE = frozenset({"resource", "audience"})


class TokenEndpoint:
    """Gives tokens."""

    methods = frozenset({"POST"})

    def __init__(self, server: AuthorizationServer, policy: ProviderPolicy) -> None:
        self._server = server
        self._policy = policy

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""
        parameters, credentials = read_authenticated(
            request, self._policy, _OUTSIDE_THE_FORM, repeatable=_REPEATABLE
        )
        grant_type = parameters.get("grant_type")
        if grant_type is None:
            raise InvalidRequestError("grant_type is missing.")
        grant = self._server.grant(grant_type)
        client = await self._server.authenticate(
            credentials, certificate=request.certificate, source=request.source
        )
        issued = await self._server.issue(
            grant,
            GrantRequest(
                client,
                parameters,
                resources=read_repeated(request.body, "resource"),
                audiences=read_repeated(request.body, "audience"),
            ),
        )
        return answer(
            200,
            {
                "access_token": issued.access_token,
                "token_type": issued.token_type,
                "expires_in": issued.expires_in,
                "scope": issued.token.scope,
                **issued.members,
            },
            client_id=credentials.client_id,
        )
