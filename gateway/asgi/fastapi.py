"""The bearer check as a dependency of FastAPI, described in the OpenAPI document."""

from typing import Unpack

from fastapi import HTTPException
from fastapi.openapi.models import OAuth2, OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from gateway.app.embedded import (
    BearerRules,
    EmbeddedGateway,
    Identity,
    RejectedError,
    Requirements,
)
from gateway.asgi import IDENTITY, check

__all__ = ["BearerSecurity"]


class BearerSecurity(SecurityBase):
    """Dependency whose value is the caller: `Security(bearer, scopes=["orders:read"])`, on HTTP
    and WebSocket routes."""

    def __init__(
        self,
        gateway: EmbeddedGateway,
        *,
        scheme_name: str = "bearer",
        **requirements: Unpack[Requirements],
    ) -> None:
        self._gateway = gateway
        self._rules = BearerRules.of(**requirements)
        policy = gateway.policy
        self.scheme_name = scheme_name
        self.model = OAuth2(
            flows=OAuthFlows(
                clientCredentials=OAuthFlowClientCredentials(
                    tokenUrl=policy.url(policy.token_path),
                    scopes={name: name for name in policy.scopes},
                )
            )
        )

    async def __call__(self, connection: HTTPConnection, needed: SecurityScopes) -> Identity | None:
        """Return the caller; None for a request without a token, where that is allowed. Raises
        `HTTPException` with the status and the challenge of the gateway's routes."""
        rules = self._rules.requiring(frozenset(needed.scopes))
        try:
            found = await check(connection.scope, self._gateway, rules)
        except RejectedError as error:
            response = error.response
            fields = dict(response.headers)
            del fields["Content-Type"]  # FastAPI's handler writes the body
            raise HTTPException(response.status, response.detail, fields) from None
        connection.scope[IDENTITY] = found
        return found
