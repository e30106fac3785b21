"""The provider's paths in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from gateway.oauth.endpoints.discovery import AUTHORIZATION_SERVER, PROTECTED_RESOURCE
from gateway.oauth.endpoints.keys import JWKS
from gateway.oauth.policy import AUTHORIZATION_CODE, ProviderPolicy

Document = dict[str, Any]

_TEXT: Document = {"type": "string"}
_MULE = ("client_id", "client_secret", "client_name", "scope", "description", "grant_types",
         "redirect_uris")  # fmt: skip


def provider_paths(policy: ProviderPolicy) -> Document:
    """Every path of the provider, at the issuer."""
    token = _form("token", "token_type_hint")
    client = {"name": "client_id", "in": "query", "schema": _TEXT}
    answer = {"type": "object"}
    issued = {
        "type": "object",
        "properties": {"access_token": _TEXT, "token_type": {"enum": ["Bearer", "DPoP"]},
                       "expires_in": {"type": "integer"}, "scope": _TEXT,
                       "refresh_token": _TEXT, "issued_token_type": _TEXT},
        "required": ["access_token", "token_type", "expires_in", "scope"],
    }  # fmt: skip
    registration = {"application/json": {"schema": {"$ref": "#/components/schemas/ClientMetadata"}}}
    asked = _form("grant_type", "code", "code_verifier", "redirect_uri", "scope",
                  "resource", "audience", "subject_token",
                  "subject_token_type", "actor_token", "actor_token_type",
                  "requested_token_type", "refresh_token", "client_id", "client_secret",
                  "client_assertion", "client_assertion_type")  # fmt: skip
    described = _operation("What a token is, for its bearer", "accessToken", answer)
    paths: Document = {
        policy.token_path: {
            "post": _operation("Get a token (RFC 6749)", "client", issued, asked, fails=(429,))
        },
        policy.revoke_path: {
            "post": _operation(
                "Revoke a token (RFC 7009)", "client", answer, token, fails=(429,)
            )
        },
        policy.introspect_path: {
            "post": _operation(
                "Tell what a token is (RFC 7662)", "client", answer, token, fails=(429,)
            )
        },
        policy.validate_path: {"get": described, "post": described},
        policy.create_client_path: {
            "post": _operation(
                "Register a client, the Mule way", "registrationToken", answer, _form(*_MULE),
                status=201, fails=(403, 409, 429),
            )
        },
        policy.register_path: {
            "post": _operation(
                "Register a client (RFC 7591)", "registrationToken", answer, registration,
                status=201, fails=(403, 429),
            ),
            "get": _operation(
                "Read a registration (RFC 7592)", "registrationToken", answer, parameters=[client]
            ),
            "put": _operation(
                "Replace a registration (RFC 7592)", "registrationToken", answer, registration,
                parameters=[client],
            ),
            "delete": _operation(
                "Delete a client (RFC 7592)", "registrationToken", None, status=204,
                parameters=[client],
            ),
        },
        AUTHORIZATION_SERVER: {"get": _document("The provider's metadata (RFC 8414)")},
        PROTECTED_RESOURCE: {"get": _document("A resource's metadata (RFC 9728)")},
        JWKS: {"get": _document("The keys that sign tokens (RFC 7517)")},
    }  # fmt: skip
    if AUTHORIZATION_CODE in policy.grant_types:
        paths[policy.authorize_path] = {"get": _authorization()}
    if policy.registration_mode == "off":
        del paths[policy.register_path]
    for path in paths.values():
        path["servers"] = [{"url": policy.origin}]
    return paths


def _operation(
    summary: str,
    security: str,
    answer: Document | None,
    body: Document | None = None,
    *,
    status: int = 200,
    fails: tuple[int, ...] = (),
    parameters: list[Document] | None = None,
) -> Document:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refused = {"description": "Refused; `error` says why.", "content": error}
    missing = {"description": "Not authenticated.", "content": {"application/json": {}}}
    done: Document = {"description": "Done."}
    if answer is not None:
        done["content"] = {"application/json": {"schema": answer}}
    operation: Document = {
        "summary": summary,
        "tags": ["provider"],
        "security": [{security: []}],
        "responses": {
            str(status): done,
            **{str(code): refused for code in sorted({400, 413, 503, *fails})},
            "401": missing,
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"content": body}
    return operation


def _authorization() -> Document:
    """Its other pages are for people and not for clients."""
    needed = ("response_type", "client_id", "code_challenge", "code_challenge_method")
    others = ("redirect_uri", "scope", "state", "resource", "prompt", "login_hint", "dpop_jkt")
    page = {"text/html": {"schema": _TEXT}}
    return {
        "summary": "Ask a person to sign in and to allow something (RFC 6749, RFC 7636)",
        "tags": ["provider"],
        "parameters": [
            {"name": name, "in": "query", "required": name in needed, "schema": _TEXT}
            for name in (*needed, *others)
        ],
        "responses": {
            "200": {"description": "A page: sign in, or allow.", "content": page},
            "303": {"description": "Back to the client with `code` or `error`, `state`, `iss`."},
            "400": {"description": "A page: the client or its address is wrong.", "content": page},
            "503": {"description": "A page: the store does not answer.", "content": page},
        },
    }


def _document(summary: str) -> Document:
    return {
        "summary": summary,
        "tags": ["provider"],
        "responses": {
            "200": {
                "description": "The document.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            }
        },
    }


def _form(*names: str) -> Document:
    properties = dict.fromkeys(names, _TEXT)
    schema = {"type": "object", "properties": properties}
    return {"application/x-www-form-urlencoded": {"schema": schema}}
