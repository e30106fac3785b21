"""What tokens are, and their end before their time: validation, introspection, revocation."""

from __future__ import annotations

import time
from typing import Any, Protocol

from gateway.oauth.authentication import AuthenticatedClient
from gateway.oauth.endpoints.messages import (
    NO_STORE,
    EndpointRequest,
    EndpointResponse,
    answer,
)
from gateway.oauth.endpoints.reading import CREDENTIALS, read_authenticated
from gateway.oauth.errors import (
    BearerError,
    InvalidRequestError,
    InvalidTokenError,
    MissingTokenError,
    OAuthError,
)
from gateway.oauth.models import AccessToken, Clock
from gateway.oauth.parameters import Parameters, header_values
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.refresh import FamilyState
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.validator import read_bearer

# RFC 7662 section 2.2: nothing but this, whatever is wrong with a token.
_INACTIVE: dict[str, Any] = {"active": False}


class ValidToken(Protocol):
    """What a look-up of a valid token yields."""

    @property
    def token(self) -> AccessToken:
        """The token."""


class TokenLookup(Protocol):
    """Looks tokens up, as `BearerValidator` does."""

    async def lookup(self, access_token: str) -> ValidToken:
        """The token. Raises `InvalidTokenError` and `StoreUnavailableError`."""


class ValidationEndpoint:
    """`/validate`: tells the bearer of a token what it is, the MuleSoft way."""

    methods = frozenset({"GET", "HEAD", "POST"})

    def __init__(
        self, tokens: TokenLookup, *, resource_metadata: str, wall_clock: Clock = time.time
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
        return answer(200, members, client_id=token.client_id)

    def _refuse(self, error: OAuthError) -> EndpointResponse:
        members: dict[str, Any] = {"active": False}
        if not isinstance(error, MissingTokenError):
            # RFC 6750 section 3.1: without a token there is no error code to tell.
            members |= error.body()
        if isinstance(error, BearerError):
            error.resource_metadata = self._resource_metadata
        return answer(
            error.status, members, headers=(*NO_STORE, *error.headers), reason=error.reason
        )


class IntrospectionEndpoint:
    """`/introspect`: tells a client what a token is (RFC 7662)."""

    methods = frozenset({"POST"})

    def __init__(
        self, server: AuthorizationServer, tokens: TokenLookup, policy: ProviderPolicy
    ) -> None:
        self._server = server
        self._tokens = tokens
        self._policy = policy

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""
        client, parameters = await _authenticate(request, self._server, self._policy)
        client.require_proof()
        value, client_id = _required_token(parameters), client.client.client_id
        refresh_tokens = self._server.refresh_tokens
        # First, because a look-up of what is no access token of ours may ask other issuers.
        if await refresh_tokens.find_family(value) is not None:
            state = await refresh_tokens.inspect(value)
            # To everybody else it is nothing: a resource must not take it for an access token
            # (RFC 7662 section 4).
            is_own = state is not None and state.family.client_id == client_id
            members = describe_refresh_token(state) if state and is_own else _INACTIVE
        else:
            members = await self._describe_access_token(value)
        if members["active"]:
            members.setdefault("iss", self._policy.issuer)
        return answer(200, members, client_id=client_id)

    async def _describe_access_token(self, value: str) -> dict[str, Any]:
        try:
            token = (await self._tokens.lookup(value)).token
        except InvalidTokenError:
            return _INACTIVE
        members = describe_token(token)
        members.setdefault("sub", token.client_id)
        return members


class RevocationEndpoint:
    """`/revoke`: ends a token of the client that asks (RFC 7009)."""

    methods = frozenset({"POST"})

    def __init__(self, server: AuthorizationServer, policy: ProviderPolicy) -> None:
        self._server = server
        self._policy = policy

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""
        client, parameters = await _authenticate(request, self._server, self._policy)
        await self._server.revoke_own_token(client, _required_token(parameters))
        # RFC 7009 section 2.2: the body is of no interest; but some clients read JSON from it.
        return answer(200, {}, client_id=client.client.client_id)


async def _authenticate(
    request: EndpointRequest, server: AuthorizationServer, policy: ProviderPolicy
) -> tuple[AuthenticatedClient, Parameters]:
    parameters, credentials = read_authenticated(request, policy, CREDENTIALS)
    client = await server.authenticate(
        credentials, certificate=request.certificate, source=request.source
    )
    return client, parameters


def describe_token(token: AccessToken) -> dict[str, Any]:
    """A valid token in the words of RFC 7662 section 2.2."""
    return {
        "active": True,
        "client_id": token.client_id,
        "scope": token.scope,
        "token_type": "DPoP" if "jkt" in token.claims.get("cnf", {}) else "Bearer",
        "iat": int(token.issued_at),
        "exp": int(token.expires_at),
        **{name: value for name, value in token.claims.items() if name in _TOLD},
    }


def describe_refresh_token(state: FamilyState) -> dict[str, Any]:
    """A live refresh token in the words of RFC 7662 section 2.2. `token_type` is left out: it
    tells how access tokens are shown."""
    family = state.family
    members = {
        "active": True,
        "client_id": family.client_id,
        "scope": " ".join(family.scopes),
        "token_use": "refresh_token",
        "sub": family.client_id,
        "iat": int(family.began_at),
        "exp": int(state.expires_at),
        **{name: value for name, value in family.claims.items() if name in _TOLD},
    }
    if family.audience:
        members["aud"] = list(family.audience)
    if family.confirmation:
        members["cnf"] = family.confirmation
    return members


_TOLD = frozenset({"act", "aud", "cnf", "exp", "iss", "may_act", "jti", "nbf", "sub", "username"})


def _required_token(parameters: Parameters) -> str:
    token = parameters.get("token")
    if token is None:
        raise InvalidRequestError("token is missing.")
    return token
