"""`/validate`: shows the bearer the metadata of its token, in MuleSoft's format."""

from __future__ import annotations

import time
from typing import ClassVar

from gateway.http.fields import header_values
from gateway.oauth.bearer import read_bearer
from gateway.oauth.endpoints.http import (
    NO_STORE,
    EndpointRequest,
    EndpointResponse,
    Operations,
    ProviderOperation,
    json_response,
    methods_of,
)
from gateway.oauth.endpoints.introspection import TokenDescription, describe_token
from gateway.oauth.errors import BearerError, MissingTokenError, OAuthError
from gateway.oauth.models import Clock
from gateway.oauth.token_cache import TokenCache

_VALIDATE = ProviderOperation(
    "Describe a token to its bearer", TokenDescription, security="accessToken"
)


class ValidationEndpoint:
    """Describes the token that a request carries."""

    operations: ClassVar[Operations] = {"GET": _VALIDATE, "POST": _VALIDATE}
    methods = methods_of(operations)

    def __init__(
        self, tokens: TokenCache, *, resource_metadata: str, wall_clock: Clock = time.time
    ) -> None:
        self._tokens = tokens
        self._resource_metadata = resource_metadata
        self._wall_clock = wall_clock

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `StoreUnavailableError`."""
        try:
            bearer = read_bearer(header_values(request.headers, b"authorization"))
            token = (await self._tokens.lookup(bearer)).token
        except OAuthError as error:
            return self._refuse(error)
        members = describe_token(token)
        members["expires_in"] = max(0, int(token.expires_at - self._wall_clock()))
        return json_response(200, members, client_id=token.client_id)

    def _refuse(self, error: OAuthError) -> EndpointResponse:
        members: dict[str, object] = {"active": False}
        if not isinstance(error, MissingTokenError):
            # RFC 6750 section 3.1: without a token there is no error code to send.
            members |= error.body()
        if isinstance(error, BearerError):
            error.resource_metadata = self._resource_metadata
        return json_response(
            error.status, members, headers=(*NO_STORE, *error.headers), reason=error.reason
        )
