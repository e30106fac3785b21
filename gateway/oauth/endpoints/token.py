"""The token endpoint (RFC 6749 section 3.2)."""

from __future__ import annotations

from typing import ClassVar, Literal, NotRequired, TypedDict

from gateway.oauth.authentication.presented import CREDENTIAL_PARAMETERS
from gateway.oauth.binding.confirmation import TokenBinder
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.endpoints.http import (
    CREDENTIALS,
    NO_STORE,
    EndpointRequest,
    EndpointResponse,
    Operations,
    ProviderOperation,
    json_response,
    methods_of,
    read_authenticated,
)
from gateway.oauth.errors import InvalidClientError, InvalidRequestError
from gateway.oauth.grants import GrantRequest
from gateway.oauth.models import RecordStore
from gateway.oauth.parameters import read_repeated
from gateway.oauth.policy import JWT_BEARER, TOKEN_EXCHANGE, ProviderPolicy
from gateway.oauth.server import AuthorizationServer

_OUTSIDE_THE_FORM = (*CREDENTIALS, "grant_type", "scope")
_IDENTIFYING = frozenset({JWT_BEARER, TOKEN_EXCHANGE})
"""The grants that can say who the client is."""
_REPEATABLE = frozenset({"resource", "audience"})


class TokenResponse(TypedDict):
    """A successful response (RFC 6749 section 5.1)."""

    access_token: str
    token_type: Literal["Bearer", "DPoP"]
    expires_in: int
    scope: str
    refresh_token: NotRequired[str]
    issued_token_type: NotRequired[str]


class TokenEndpoint:
    """Gives tokens."""

    operations: ClassVar[Operations] = {
        "POST": ProviderOperation(
            "Get a token (RFC 6749)",
            TokenResponse,
            security="client",
            form=(
                "grant_type", "code", "code_verifier", "redirect_uri", "scope", "resource",
                "audience", "subject_token", "subject_token_type", "actor_token",
                "actor_token_type", "requested_token_type", "refresh_token", "assertion",
                *CREDENTIAL_PARAMETERS,
            ),
            fails=(429,),
        )
    }  # fmt: skip
    methods = methods_of(operations)

    def __init__(
        self,
        server: AuthorizationServer,
        policy: ProviderPolicy,
        records: RecordStore,
        proofs: DpopProofs,
    ) -> None:
        self._server = server
        self._policy = policy
        self._proofs = proofs
        self._binder = TokenBinder(records, proofs, policy)

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""
        parameters, credentials = read_authenticated(
            request,
            self._policy,
            self.operations["POST"].form,
            outside=_OUTSIDE_THE_FORM,
            repeatable=_REPEATABLE,
            may_be_absent=True,
        )
        grant_type = parameters.get("grant_type")
        is_nameless = credentials.is_id_alone and not credentials.client_id
        if is_nameless and request.certificate is None and grant_type not in _IDENTIFYING:
            raise InvalidClientError("No client credentials were given.")
        if grant_type is None:
            raise InvalidRequestError("grant_type is missing.")
        grant = self._server.grant(grant_type)
        client, is_identified = await self._server.identify(
            grant,
            credentials,
            parameters,
            certificate=request.certificate,
            source=request.source,
        )
        grant_request = GrantRequest(
            client,
            parameters,
            resources=self._policy.name_resources(read_repeated(request.body, "resource")),
            audiences=self._policy.name_resources(read_repeated(request.body, "audience")),
            confirmation=await self._binder.confirm(client, request.headers, request.certificate),
            is_identified=is_identified,
            source=request.source,
        )
        issued = await self._server.issue(grant, grant_request)
        # RFC 9449 section 8.2: the nonce for the next request comes with this response.
        nonce = self._proofs.fresh_nonce()
        response: TokenResponse = {
            "access_token": issued.access_token,
            "token_type": issued.token_type,
            "expires_in": issued.expires_in,
            "scope": issued.token.scope,
            **issued.members,  # type: ignore[typeddict-item]
        }
        return json_response(
            200,
            response,
            headers=(*NO_STORE, ("DPoP-Nonce", nonce)) if nonce else NO_STORE,
            client_id=client.client.client_id,
        )
