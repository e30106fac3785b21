"""The HTTP face of the provider, on plain values: which path does what.

Each endpoint reads its request, lets the provider decide and renders the response. Errors
of all kinds are responses too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar, Protocol

from gateway.metrics import Metrics
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.endpoints.cors import ProviderCors, is_preflight
from gateway.oauth.endpoints.discovery import (
    JWKS,
    AuthorizationServerMetadata,
    KeysEndpoint,
    ProtectedResourceMetadata,
    authorization_server_paths,
    is_below_resource,
    resource_metadata_path,
    resource_metadata_paths,
)
from gateway.oauth.endpoints.http import (
    EndpointRequest,
    EndpointResponse,
    Operations,
    error_response,
)
from gateway.oauth.endpoints.introspection import IntrospectionEndpoint
from gateway.oauth.endpoints.paths import ProviderPaths
from gateway.oauth.endpoints.registration import (
    CreateClientEndpoint,
    RegistrationEndpoint,
    RegistrationGate,
)
from gateway.oauth.endpoints.revocation import RevocationEndpoint
from gateway.oauth.endpoints.token import TokenEndpoint
from gateway.oauth.endpoints.validation import ValidationEndpoint
from gateway.oauth.errors import MethodError, OAuthError, TemporarilyUnavailableError
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Clock, RecordStore, StoreUnavailableError
from gateway.oauth.policy import AUTHORIZATION_CODE, ProviderPolicy
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.token_cache import TokenCache
from gateway.rate_limit import LocalRateLimits, RateLimits

__all__ = [
    "EndpointRequest",
    "EndpointResponse",
    "ProviderEndpoints",
    "error_response",
    "provider_operations",
]


_PUBLIC = (AuthorizationServerMetadata, ProtectedResourceMetadata, KeysEndpoint)
"""Documents without secrets, which pages of all origins may read."""


class ProviderEndpoint(Protocol):
    """Serves one path."""

    @property
    def methods(self) -> frozenset[str]:
        """The methods it takes."""

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """The response. Raises `OAuthError` and `StoreUnavailableError`."""


class JsonEndpoint(ProviderEndpoint, Protocol):
    """An endpoint for clients, with a description of its operations."""

    operations: ClassVar[Operations]


def _endpoint_classes(policy: ProviderPolicy) -> dict[str, type[JsonEndpoint]]:
    """Which path is served by what, the pages for users aside."""
    if policy.other_authorization_servers is not None:
        return dict.fromkeys(resource_metadata_paths(policy), ProtectedResourceMetadata)
    classes: dict[str, type[JsonEndpoint]] = {
        **dict.fromkeys(authorization_server_paths(policy), AuthorizationServerMetadata),
        **dict.fromkeys(resource_metadata_paths(policy), ProtectedResourceMetadata),
        policy.token_path: TokenEndpoint,
        JWKS: KeysEndpoint,
        policy.create_client_path: CreateClientEndpoint,
        policy.revoke_path: RevocationEndpoint,
        policy.introspect_path: IntrospectionEndpoint,
        policy.validate_path: ValidationEndpoint,
    }
    if policy.registration_mode != "off":
        # Otherwise the path is left to the applications behind: many have one of this name.
        classes[policy.register_path] = RegistrationEndpoint
    return classes


def provider_paths(policy: ProviderPolicy) -> ProviderPaths:
    """Return the paths that belong to the provider."""
    has_pages = AUTHORIZATION_CODE in policy.grant_types
    authorize_path = policy.authorize_path if has_pages else ""
    return ProviderPaths(
        provider_operations(policy),
        authorize_path=authorize_path,
        is_below=partial(is_below_resource, policy),
    )


def provider_operations(policy: ProviderPolicy) -> dict[str, Operations]:
    """Return the operations of each path of the provider."""
    operations = {path: kind.operations for path, kind in _endpoint_classes(policy).items()}
    if AUTHORIZATION_CODE in policy.grant_types:
        # Imported here, with its templates: most gateways have no pages.
        from gateway.oauth.endpoints.authorize.authorize import AuthorizeEndpoint

        operations[policy.authorize_path] = AuthorizeEndpoint.operations
    return operations


class ProviderEndpoints:
    """Serves the provider's paths."""

    def __init__(
        self,
        server: AuthorizationServer,
        tokens: TokenCache,
        policy: ProviderPolicy,
        limiter: FailedClientLimiter,
        metrics: Metrics,
        *,
        records: RecordStore,
        proofs: DpopProofs,
        signing_keys: SigningKeys,
        authorization: Mapping[str, ProviderEndpoint] | None = None,
        rates: RateLimits | None = None,
        wall_clock: Clock = time.time,
    ) -> None:
        """`authorization` are the pages of the authorization endpoint, where it is there; `rates`
        counts registrations."""
        self._policy = policy
        self._metrics = metrics
        rates = rates or RateLimits(LocalRateLimits())
        gate = RegistrationGate(policy, limiter, metrics, rates)
        made: list[ProviderEndpoint] = [
            AuthorizationServerMetadata(policy),
            ProtectedResourceMetadata(policy),
            TokenEndpoint(server, policy, records, proofs),
            KeysEndpoint(signing_keys),
            CreateClientEndpoint(server, policy, gate),
            RegistrationEndpoint(server, policy, gate),
            RevocationEndpoint(server, policy),
            IntrospectionEndpoint(server, tokens, policy),
            ValidationEndpoint(
                tokens,
                policy,
                proofs,
                resource_metadata=policy.url(resource_metadata_path("/")),
                wall_clock=wall_clock,
            ),
        ]
        by_class = {type(endpoint): endpoint for endpoint in made}
        self._endpoints: dict[str, ProviderEndpoint] = {
            path: by_class[kind] for path, kind in _endpoint_classes(policy).items()
        } | dict(authorization or {})
        self._pages = frozenset(authorization or {})
        self._cors = ProviderCors(policy, server.browser_origins)
        self.known_paths = ProviderPaths(
            self._endpoints,
            authorize_path=policy.authorize_path if authorization else "",
            is_below=partial(is_below_resource, policy),
        )
        self._resource_metadata = by_class[ProtectedResourceMetadata]
        self.paths = self.known_paths.served
        """The canonical paths that belong to the provider, on every host."""

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Respond to a request for one of `known_paths`. Errors of all kinds are responses
        too."""
        endpoint = self._endpoints.get(request.path, self._resource_metadata)
        if request.path in self._pages:
            return await self._respond(endpoint, request)
        is_public = isinstance(endpoint, _PUBLIC)
        if is_preflight(request):
            try:
                return await self._cors.preflight(request, endpoint.methods, is_public=is_public)
            except OAuthError as error:
                return error_response(error)
        response = await self._respond(endpoint, request)
        fields = await self._cors.fields(request, is_public=is_public)
        return replace(response, headers=(*response.headers, *fields)) if fields else response

    async def _respond(
        self, endpoint: ProviderEndpoint, request: EndpointRequest
    ) -> EndpointResponse:
        try:
            if request.method not in endpoint.methods:
                raise MethodError(headers=(("Allow", ", ".join(sorted(endpoint.methods))),))
            return await endpoint.respond(request)
        except StoreUnavailableError as error:
            return error_response(
                TemporarilyUnavailableError(reason=error.code, retry_after_s=error.retry_after_s)
            )
        except OAuthError as error:
            if request.path == self._policy.token_path:
                self._metrics.provider.token_errors.labels(error.error).inc()
            return error_response(error)
