"""`/revoke`: ends a token of the client that asks (RFC 7009)."""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.oauth.endpoints.http import (
    EndpointRequest,
    EndpointResponse,
    Operations,
    ProviderOperation,
    json_response,
    methods_of,
)
from gateway.oauth.endpoints.introspection import TOKEN_FORM, read_token_request
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.server import AuthorizationServer


class RevocationEndpoint:
    """Ends tokens."""

    operations: ClassVar[Operations] = {
        "POST": ProviderOperation(
            "Revoke a token (RFC 7009)",
            dict[str, Any],
            security="client",
            form=TOKEN_FORM,
            fails=(429,),
        )
    }
    methods = methods_of(operations)

    def __init__(self, server: AuthorizationServer, policy: ProviderPolicy) -> None:
        self._server = server
        self._policy = policy

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""
        client, value = await read_token_request(request, self._server, self._policy)
        await self._server.revoke_own_token(client, value)
        # RFC 7009 section 2.2: the body is of no interest; but some clients read JSON from it.
        return json_response(200, {}, client_id=client.client.client_id)
