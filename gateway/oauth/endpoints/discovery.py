"""Discovery documents: the provider's metadata, its resources, its keys.

RFC 8414 (`/.well-known/oauth-authorization-server`), RFC 9728
(`/.well-known/oauth-protected-resource`), RFC 7517 (`/jwks.json`). Everything is made from the
configuration; nothing is ever made from a Host header.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlsplit

from gateway.oauth.authentication.assertion import ASSERTION_ALGORITHMS
from gateway.oauth.endpoints.http import (
    EndpointRequest,
    EndpointResponse,
    Headers,
    Operations,
    ProviderOperation,
    json_response,
    methods_of,
)
from gateway.oauth.errors import DPOP_ALGORITHMS
from gateway.oauth.identity_assertions import GRANT_PROFILE
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.policy import AUTHORIZATION_CODE, ProtectedResource, ProviderPolicy

AUTHORIZATION_SERVER = "/.well-known/oauth-authorization-server"
OPENID_CONFIGURATION = "/.well-known/openid-configuration"
PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"
JWKS = "/jwks.json"
CACHEABLE: Headers = (("Cache-Control", "public, max-age=300"),)


def authorization_server_paths(policy: ProviderPolicy) -> list[str]:
    """Return the paths of the provider's metadata. Where the issuer has a path of its own, that is
    at their end (RFC 8414 section 3.1), and clients look where OpenID providers publish theirs, too
    (RFC 8414 section 5, OpenID Connect Discovery 1.0 section 4)."""
    suffix = urlsplit(policy.issuer).path.rstrip("/")
    if not suffix:
        return [AUTHORIZATION_SERVER]
    return [
        AUTHORIZATION_SERVER,
        AUTHORIZATION_SERVER + suffix,
        OPENID_CONFIGURATION + suffix,
        suffix + OPENID_CONFIGURATION,
    ]


def resource_metadata_path(path: str) -> str:
    """Return the path of a resource's metadata (RFC 9728 section 3.1)."""
    return PROTECTED_RESOURCE + ("" if path == "/" else path)


def resource_metadata_paths(policy: ProviderPolicy) -> list[str]:
    """Return the paths of the metadata of all resources."""
    resources = (*policy.resources, ProtectedResource("/"))
    return list(dict.fromkeys(resource_metadata_path(resource.path) for resource in resources))


def is_below_resource(policy: ProviderPolicy, path: str) -> bool:
    """Whether a path is that of the metadata of what is below a resource."""
    start = PROTECTED_RESOURCE + "/"
    return path.startswith(start) and any(
        resource.path == "/" or path.startswith(f"{PROTECTED_RESOURCE}{resource.path}/")
        for resource in policy.resources
        if not resource.exact
    )


class AuthorizationServerMetadata:
    """Describe the provider (RFC 8414 section 2)."""

    operations: ClassVar[Operations] = {
        "GET": ProviderOperation("The provider's metadata (RFC 8414)", dict[str, Any])
    }
    methods = methods_of(operations)

    def __init__(self, policy: ProviderPolicy) -> None:
        self._document = describe_provider(policy)

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """The document."""
        return json_response(200, self._document, headers=CACHEABLE)


class ProtectedResourceMetadata:
    """Describe a resource: the tokens that it takes and who issues them (RFC 9728 section 2)."""

    operations: ClassVar[Operations] = {
        "GET": ProviderOperation("A resource's metadata (RFC 9728)", dict[str, Any])
    }
    methods = methods_of(operations)

    def __init__(self, policy: ProviderPolicy) -> None:
        self._policy = policy
        self._documents: dict[tuple[str, str], dict[str, Any]] = {}
        for resource in (*policy.resources, ProtectedResource("/", scopes=policy.scopes)):
            key = (resource_metadata_path(resource.path), resource.host)
            self._documents.setdefault(key, describe_resource(policy, resource))

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """The document of the resource on this host, else of the one on any host."""
        document = self._find(request.path, request.host)
        if document is None:
            document = self._describe_below(request.path, request.host)
        return json_response(200, document, headers=CACHEABLE)

    def _find(self, path: str, host: str) -> dict[str, Any] | None:
        documents = self._documents
        if document := documents.get((path, host)) or documents.get((path, "")):
            return document
        return next((made for (known, _), made in documents.items() if known == path), None)

    def _describe_below(self, path: str, host: str) -> dict[str, Any]:
        """Describe what is below a route, by its own URL: clients compare it with theirs (RFC 9728
        section 3.3)."""
        above = self._policy.resources_above(path.removeprefix(PROTECTED_RESOURCE), host)
        resource = next(above, None) or ProtectedResource("/", scopes=self._policy.scopes)
        described = describe_resource(self._policy, resource)
        rest = path.removeprefix(resource_metadata_path(resource.path))
        return {**described, "resource": described["resource"] + rest}


class KeysEndpoint:
    """The public keys, by which others verify our tokens (RFC 7517 section 5)."""

    operations: ClassVar[Operations] = {
        "GET": ProviderOperation(
            "The keys that sign tokens (RFC 7517)", dict[str, Any], fails=(503,)
        )
    }
    methods = methods_of(operations)

    def __init__(self, signing_keys: SigningKeys) -> None:
        self._signing_keys = signing_keys

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `StoreUnavailableError`."""
        return json_response(200, await self._signing_keys.jwks(), headers=CACHEABLE)


def describe_provider(policy: ProviderPolicy) -> dict[str, Any]:
    """RFC 8414 section 2."""
    methods = [*_secret_methods(policy), "private_key_jwt"]
    if policy.takes_certificates:
        methods += ["tls_client_auth", "self_signed_tls_client_auth"]
    methods += _spiffe_methods(policy)
    members: dict[str, Any] = {
        "issuer": policy.issuer,
        "token_endpoint": policy.url(policy.token_path),
        "revocation_endpoint": policy.url(policy.revoke_path),
        "introspection_endpoint": policy.url(policy.introspect_path),
        "jwks_uri": policy.url(JWKS),
        "response_types_supported": [],
        "grant_types_supported": list(policy.grant_types),
        "scopes_supported": list(policy.scopes) or None,
        "tls_client_certificate_bound_access_tokens": policy.takes_certificates or None,
        "dpop_signing_alg_values_supported": DPOP_ALGORITHMS.split(),
        "protected_resources": sorted(map(policy.resource_url, policy.resources)) or None,
    }
    if policy.identity_assertions:
        members["authorization_grant_profiles_supported"] = [GRANT_PROFILE]
    for endpoint in ("token", "revocation", "introspection"):
        members[f"{endpoint}_endpoint_auth_methods_supported"] = methods
        members[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] = list(
            ASSERTION_ALGORITHMS
        )
    if AUTHORIZATION_CODE in policy.grant_types:
        members |= {
            "authorization_endpoint": policy.url(policy.authorize_path),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
        }
        # Public clients redeem codes and end tokens, but cannot introspect them.
        for endpoint in ("token", "revocation"):
            members[f"{endpoint}_endpoint_auth_methods_supported"] = [*methods, "none"]
        if policy.client_document_hosts is not None:
            members["client_id_metadata_document_supported"] = True
    if policy.registration_mode != "off":
        members["registration_endpoint"] = policy.url(policy.register_path)
    return {name: value for name, value in members.items() if value is not None}


def describe_resource(policy: ProviderPolicy, resource: ProtectedResource) -> dict[str, Any]:
    """RFC 9728 section 2."""
    members = {
        "resource": policy.resource_url(resource),
        "authorization_servers": list(policy.authorization_servers) or None,
        "bearer_methods_supported": ["header"],
        "scopes_supported": list(resource.scopes) or None,
    }
    return {name: value for name, value in members.items() if value is not None}


def _spiffe_methods(policy: ProviderPolicy) -> list[str]:
    """draft-ietf-oauth-spiffe-client-auth."""
    rules = [rule for rule in policy.workloads if rule.spiffe_domain is not None]
    is_jwt = any(rule.issuer is not None for rule in rules)
    is_x509 = any(rule.trust_domain is not None for rule in rules)
    return [*(["spiffe_jwt"] if is_jwt else ()), *(["spiffe_x509"] if is_x509 else ())]


def _secret_methods(policy: ProviderPolicy) -> list[str]:
    ways = {"basic": "client_secret_basic", "form": "client_secret_post"}
    return [method for way, method in ways.items() if way in policy.credentials_in]
