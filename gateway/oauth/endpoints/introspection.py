"""`/introspect`: shows a client the metadata of a token (RFC 7662)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NotRequired, TypedDict

from gateway.oauth.authentication import AuthenticatedClient
from gateway.oauth.authentication.presented import CREDENTIAL_PARAMETERS
from gateway.oauth.endpoints.http import (
    EndpointRequest,
    EndpointResponse,
    Operations,
    ProviderOperation,
    json_response,
    methods_of,
    read_authenticated,
)
from gateway.oauth.errors import InvalidRequestError, InvalidTokenError
from gateway.oauth.models import AccessToken
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.refresh import FamilyState
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.token_cache import TokenCache

TOKEN_FORM = ("token", "token_type_hint", *CREDENTIAL_PARAMETERS)
_REPORTED = frozenset(
    {"act", "aud", "cnf", "exp", "iss", "may_act", "jti", "nbf", "sub", "username", "workload"}
)


class TokenDescription(TypedDict):
    """A token in the words of RFC 7662 section 2.2; without the other members if not active."""

    active: bool
    client_id: NotRequired[str]
    scope: NotRequired[str]
    token_type: NotRequired[str]
    token_use: NotRequired[str]
    iat: NotRequired[int]
    exp: NotRequired[int]
    expires_in: NotRequired[int]
    sub: NotRequired[str]
    iss: NotRequired[str]
    aud: NotRequired[Any]
    cnf: NotRequired[dict[str, Any]]


class IntrospectionEndpoint:
    """Describes tokens to clients."""

    operations: ClassVar[Operations] = {
        "POST": ProviderOperation(
            "Describe a token (RFC 7662)",
            TokenDescription,
            security="client",
            form=TOKEN_FORM,
            fails=(429,),
        )
    }
    methods = methods_of(operations)

    def __init__(
        self, server: AuthorizationServer, tokens: TokenCache, policy: ProviderPolicy
    ) -> None:
        self._server = server
        self._tokens = tokens
        self._policy = policy

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""
        client, value = await read_token_request(request, self._server, self._policy)
        client.require_proof()
        client_id = client.client.client_id
        refresh_tokens = self._server.refresh_tokens
        # First, because a look-up of what is no access token of ours may ask other issuers.
        if await refresh_tokens.find_family(value) is not None:
            state = await refresh_tokens.inspect(value)
            # For all others it is inactive: a resource must not take it for an access token
            # (RFC 7662 section 4).
            is_own = state is not None and state.family.client_id == client_id
            members = describe_refresh_token(state) if state and is_own else _inactive()
        else:
            members = await self._describe_access_token(value)
        if members["active"]:
            members.setdefault("iss", self._policy.issuer)
        return json_response(200, members, client_id=client_id)

    async def _describe_access_token(self, value: str) -> TokenDescription:
        try:
            token = (await self._tokens.lookup_token(value)).token
        except InvalidTokenError:
            return _inactive()
        members = describe_token(token)
        members.setdefault("sub", token.client_id)
        return members


async def read_token_request(
    request: EndpointRequest, server: AuthorizationServer, policy: ProviderPolicy
) -> tuple[AuthenticatedClient, str]:
    """The client that sends a request about a token, and the token.

    Raises `OAuthError` and `StoreUnavailableError`.
    """
    parameters, credentials = read_authenticated(request, policy, TOKEN_FORM)
    client = await server.authenticate(
        credentials, certificate=request.certificate, source=request.source
    )
    token = parameters.get("token")
    if token is None:
        raise InvalidRequestError("token is missing.")
    return client, token


def describe_token(token: AccessToken) -> TokenDescription:
    """A valid token in the words of RFC 7662 section 2.2."""
    return {
        "active": True,
        "client_id": token.client_id,
        "scope": token.scope,
        "token_type": "DPoP" if "jkt" in token.claims.get("cnf", {}) else "Bearer",
        "iat": int(token.issued_at),
        "exp": int(token.expires_at),
        **_shown(token.claims),  # type: ignore[typeddict-item]
    }


def describe_refresh_token(state: FamilyState) -> TokenDescription:
    """A live refresh token in the words of RFC 7662 section 2.2. `token_type` is left out: it
    says how access tokens are presented."""
    family = state.family
    members: TokenDescription = {
        "active": True,
        "client_id": family.client_id,
        "scope": " ".join(family.scopes),
        "token_use": "refresh_token",
        "sub": family.client_id,
        "iat": int(family.began_at),
        "exp": int(state.expires_at),
        **_shown(family.claims),  # type: ignore[typeddict-item]
    }
    if family.audience:
        members["aud"] = list(family.audience)
    if family.confirmation:
        members["cnf"] = dict(family.confirmation)
    return members


def _inactive() -> TokenDescription:
    # RFC 7662 section 2.2: nothing but this, whatever is wrong with a token.
    return {"active": False}


def _shown(claims: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if name in _REPORTED}
