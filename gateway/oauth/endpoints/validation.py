"""`/validate`: shows the bearer the metadata of its token, in MuleSoft's format."""

from __future__ import annotations

import hmac
import time
from typing import ClassVar

from gateway.http.fields import header_values
from gateway.oauth.access import TokenConstraint
from gateway.oauth.bearer import read_bearer
from gateway.oauth.binding.certificates import certificate_thumbprint
from gateway.oauth.binding.dpop import DpopError, DpopProofs, read_dpop
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
from gateway.oauth.errors import (
    BearerError,
    DpopChallengeError,
    InvalidTokenError,
    MissingTokenError,
    OAuthError,
)
from gateway.oauth.models import Clock
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.token_cache import TokenCache

_VALIDATE = ProviderOperation(
    "Describe a token to its bearer", TokenDescription, security="accessToken"
)


class ValidationEndpoint:
    """Describes the token that a request carries."""

    operations: ClassVar[Operations] = {"GET": _VALIDATE, "POST": _VALIDATE}
    methods = methods_of(operations)

    def __init__(
        self,
        tokens: TokenCache,
        policy: ProviderPolicy,
        proofs: DpopProofs,
        *,
        resource_metadata: str,
        wall_clock: Clock = time.time,
    ) -> None:
        self._tokens = tokens
        self._policy = policy
        self._proofs = proofs
        self._resource_metadata = resource_metadata
        self._wall_clock = wall_clock

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `StoreUnavailableError`."""
        try:
            authorization = header_values(request.headers, b"authorization")
            dpop = read_dpop(authorization)
            value = read_bearer(authorization) if dpop is None else dpop.decode("ascii")
            found = await self._tokens.lookup_token(value)
            await self._check_proof(found.constraint, request, is_dpop=dpop is not None)
            token = found.token
        except OAuthError as error:
            return self._refuse(error)
        members = describe_token(token)
        members["expires_in"] = max(0, int(token.expires_at - self._wall_clock()))
        return json_response(200, members, client_id=token.client_id)

    async def _check_proof(
        self, constraint: TokenConstraint | None, request: EndpointRequest, *, is_dpop: bool
    ) -> None:
        """Check that the caller may use a bound token: else a thief, who shows it without its
        proof, would learn that it is good. Raises `BearerError` and
        `StoreUnavailableError`."""
        certificate = constraint.certificate if constraint else None
        if certificate is not None:
            shown = certificate_thumbprint(request.certificate) if request.certificate else ""
            if not hmac.compare_digest(shown.encode(), certificate.encode()):
                raise InvalidTokenError(reason="certificate")
        key = constraint.key if constraint else None
        if (key is not None) is not is_dpop:
            bound = "bound to a key" if key is not None else "not bound to a key"
            raise DpopChallengeError("invalid_token", f"The token is {bound}.")
        if key is None:
            return
        try:
            proof = self._proofs.verify_with_token(
                request.headers,
                method=request.method,
                origins=(self._policy.origin,),
                path=self._policy.validate_path,
                key=key,
            )
            await self._proofs.use_up(proof)
        except DpopError as error:
            raise error.challenge() from None

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
