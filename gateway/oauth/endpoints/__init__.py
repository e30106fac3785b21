"""The HTTP face of the provider, on plain values: which path does what.

Each endpoint reads its request, lets the provider decide and renders the answer. Errors
of all kinds are answers too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from gateway.metrics import Metrics
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.endpoints.discovery import (
    AuthorizationServerMetadata,
    ProtectedResourceMetadata,
    authorization_server_paths,
    resource_metadata_path,
)
from gateway.oauth.endpoints.keys import JWKS, KeysEndpoint
from gateway.oauth.endpoints.messages import EndpointRequest, EndpointResponse, refuse
from gateway.oauth.endpoints.registration import (
    CreateClientEndpoint,
    RegistrationEndpoint,
    RegistrationGate,
)
from gateway.oauth.endpoints.token import TokenEndpoint
from gateway.oauth.endpoints.tokens import (
    IntrospectionEndpoint,
    RevocationEndpoint,
    TokenLookup,
    ValidationEndpoint,
)
from gateway.oauth.errors import MethodError, OAuthError, TemporarilyUnavailableError
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Clock, RecordStore, StoreUnavailableError
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.server import AuthorizationServer

__all__ = ["EndpointRequest", "EndpointResponse", "ProviderEndpoints"]


class Endpoint(Protocol):
    """Answers requests to one path."""

    @property
    def methods(self) -> frozenset[str]:
        """The methods it takes."""

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """The answer. Raises `OAuthError` and `StoreUnavailableError`."""


class ProviderEndpoints:
    """Answers what is asked of the provider's paths."""

    def __init__(
        self,
        server: AuthorizationServer,
        tokens: TokenLookup,
        policy: ProviderPolicy,
        limiter: FailedClientLimiter,
        metrics: Metrics,
        *,
        records: RecordStore,
        proofs: DpopProofs,
        signing_keys: SigningKeys,
        authorization: Mapping[str, Endpoint] | None = None,
        wall_clock: Clock = time.time,
    ) -> None:
        """`authorization` are the pages of the authorization endpoint, where it is there."""
        self._policy = policy
        self._metrics = metrics
        gate = RegistrationGate(policy, limiter, metrics)
        resources = ProtectedResourceMetadata(policy)
        provider = AuthorizationServerMetadata(policy)
        self._endpoints: dict[str, Endpoint] = {
            **dict.fromkeys(authorization_server_paths(policy), provider),
            **dict.fromkeys(resources.paths, resources),
            policy.token_path: TokenEndpoint(server, policy, records, proofs),
            JWKS: KeysEndpoint(signing_keys),
            policy.create_client_path: CreateClientEndpoint(server, policy, gate),
            policy.revoke_path: RevocationEndpoint(server, policy),
            policy.introspect_path: IntrospectionEndpoint(server, tokens, policy),
            policy.validate_path: ValidationEndpoint(
                tokens,
                resource_metadata=policy.url(resource_metadata_path("/")),
                wall_clock=wall_clock,
            ),
        }
        if policy.registration_mode != "off":
            # Otherwise the path is left to the applications behind: many have one of this name.
            registration = RegistrationEndpoint(server, policy, gate)
            self._endpoints[policy.register_path] = registration
        self._endpoints |= authorization or {}
        self.paths = frozenset(self._endpoints)
        """The canonical paths that belong to the provider, on every host."""

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Answer a request to one of `paths`. Errors of all kinds are answers too."""
        endpoint = self._endpoints[request.path]
        try:
            if request.method not in endpoint.methods:
                raise MethodError(headers=(("Allow", ", ".join(sorted(endpoint.methods))),))
            return await endpoint.respond(request)
        except StoreUnavailableError as error:
            return refuse(TemporarilyUnavailableError(retry_after_s=error.retry_after_s))
        except OAuthError as error:
            if request.path == self._policy.token_path:
                self._metrics.provider.token_errors.labels(error.error).inc()
            return refuse(error)
