"""The OpenAPI document of everything that the gateway answers itself (`/openapi.json`).

The admin API is on the listener that serves the document; the provider's paths are at the
issuer, which each of them says (`servers`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway import __version__
from gateway.admin.log_level import LEVELS
from gateway.admin.openapi_provider import provider_paths
from gateway.admin.openapi_status import status_paths
from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.policy import ProviderPolicy

Document = dict[str, Any]

_TEXT: Document = {"type": "string"}
_NUMBER: Document = {"type": "integer"}
_FLAG: Document = {"type": "boolean"}
_LIMIT: Document = {
    "requests": {"type": "integer", "minimum": 1},
    "per_seconds": {"type": "number", "exclusiveMinimum": 0},
    "burst": {"type": "integer", "minimum": 1},
}


_RELOAD: Document = {
    "type": "object",
    "properties": {
        "time": _TEXT, "trigger": _TEXT, "result": _TEXT, "duration_ms": {"type": "number"},
        "config_hash": _TEXT, "problems": {"type": "array", "items": _TEXT},
        "changes": {"type": "array", "items": {"type": "object"}},
    },
}  # fmt: skip


def openapi_document(policy: ProviderPolicy) -> Document:
    """The document (OpenAPI 3.1)."""
    _, schemas = msgspec.json.schema_components(
        [ClientMetadata], ref_template="#/components/schemas/{name}"
    )
    metadata = schemas["ClientMetadata"]["properties"]
    metadata.pop("registration_token_digest")
    for member in metadata.values():
        member.pop("default", None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bearer-gateway",
            "version": __version__,
            "description": "The admin API, and the OAuth 2.0 provider at the issuer.",
        },
        "paths": {**_admin_paths(), **status_paths(admin_operation), **provider_paths(policy)},
        "components": {
            "schemas": {
                "ClientMetadata": {"type": "object", "properties": metadata},
                "Client": _client(metadata),
                "Problem": _object(
                    dict.fromkeys(("type", "title", "detail", "reason"), _TEXT)
                    | {"status": _NUMBER}
                ),
                "Error": _object({"error": _TEXT, "error_description": _TEXT}),
            },
            "securitySchemes": {
                "adminToken": {"type": "http", "scheme": "bearer"},
                "registrationToken": {"type": "http", "scheme": "bearer"},
                "accessToken": {"type": "http", "scheme": "bearer"},
                "client": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _client(metadata: Document) -> Document:
    own = {
        "client_id": _TEXT, "client_name": _TEXT, "client_secret": _TEXT, "scope": _TEXT,
        "client_id_issued_at": _NUMBER, "client_secret_expires_at": _NUMBER, "expired": _FLAG,
        "rate_limit": _object(_LIMIT),
    }  # fmt: skip
    return _object(own | metadata, optional={"client_secret", "rate_limit", *metadata})


def _admin_paths() -> Document:
    client_id = {"name": "client_id", "in": "path", "required": True, "schema": _TEXT}
    client = {"$ref": "#/components/schemas/Client"}
    new = {
        "type": "object",
        "properties": {
            "client_id": _TEXT, "client_secret": _TEXT, "client_name": _TEXT, "scope": _TEXT,
            "replace": _FLAG,
        },
        "allOf": [{"$ref": "#/components/schemas/ClientMetadata"}],
    }  # fmt: skip
    changes = {"type": "object", "properties": {"client_name": _TEXT, "scope": _TEXT}}
    rotation = {
        "type": "object",
        "properties": {"client_secret": _TEXT, "revoke_tokens": _FLAG},
    }
    limit = _object(_LIMIT, optional={"per_seconds", "burst"})
    level = _object({"level": {"enum": list(LEVELS)}})
    token = _object({"token": _TEXT})
    page = [
        {"name": "after", "in": "query", "schema": _TEXT},
        {"name": "limit", "in": "query", "schema": _NUMBER | {"minimum": 1, "maximum": 1000}},
        {"name": "q", "in": "query", "schema": _TEXT},
    ]
    listed = _object({"clients": {"type": "array", "items": client}, "next": {}})
    revoked = _object({"client_id": _TEXT, "tokens_revoked": _NUMBER})
    usage = _object(
        {"client_id": _TEXT, "live_tokens": _NUMBER, "tokens_issued": _NUMBER,
         "last_used": {"type": ["integer", "null"]}}
    )  # fmt: skip
    one = "/api/v1/clients/{client_id}"
    return {
        "/healthz": {"get": _open("Whether the process lives", 200)},
        "/readyz": {"get": _open("Whether it can serve", 200, 503)},
        "/metrics": {"get": _open("Prometheus metrics", 200, media_type="text/plain")},
        "/openapi.json": {"get": _open("This document", 200)},
        "/api/v1/clients": {
            "get": admin_operation("List clients", listed, parameters=page),
            "post": admin_operation("Register a client", client, new, status=201, fails=(409,)),
        },
        one: {
            "parameters": [client_id],
            "get": admin_operation("Show a client", client, fails=(404,)),
            "patch": admin_operation("Change a client", client, changes, fails=(404,)),
            "delete": admin_operation("Delete a client", revoked, fails=(404,)),
        },
        f"{one}/renew": {
            "parameters": [client_id],
            "post": admin_operation("Let a registration begin anew", client, fails=(404,)),
        },
        f"{one}/rotate": {
            "parameters": [client_id],
            "post": admin_operation("Give a client a new secret", client, rotation, fails=(404,)),
        },
        f"{one}/revoke-tokens": {
            "parameters": [client_id],
            "post": admin_operation("Revoke all tokens of a client", revoked, fails=(404,)),
        },
        f"{one}/usage": {
            "parameters": [client_id],
            "get": admin_operation("Tell how much a client is used", usage, fails=(404,)),
        },
        f"{one}/rate-limit": {
            "parameters": [client_id],
            "put": admin_operation("Give a client its own rate limit", client, limit, fails=(404,)),
            "delete": admin_operation("Give it that of all clients again", client, fails=(404,)),
        },
        "/api/v1/log-level": {
            "get": admin_operation("Tell how much is logged", level),
            "put": admin_operation("Log more or less", level, level),
        },
        "/api/v1/reload": {
            "post": admin_operation("Load the configuration anew", _RELOAD, fails=(409, 422))
        },
        "/api/v1/reloads": {
            "get": admin_operation(
                "The last loads of the configuration, the newest first",
                _object({"reloads": {"type": "array", "items": _RELOAD}}),
                fails=(409,),
            )
        },
        "/api/v1/tokens/inspect": {
            "post": admin_operation("Tell what a token is", {"type": "object"}, token)
        },
        "/api/v1/tokens/revoke": {
            "post": admin_operation("Revoke a token", _object({"revoked": _FLAG}), token)
        },
    }


def admin_operation(
    summary: str,
    answer: Document,
    body: Document | None = None,
    *,
    status: int = 200,
    fails: tuple[int, ...] = (),
    parameters: list[Document] | None = None,
) -> Document:
    """An operation of the admin API: what it asks for, and what it may answer."""
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    refused = {"description": "Refused; `reason` says why.", "content": problem}
    operation: Document = {
        "summary": summary,
        "tags": ["admin"],
        "security": [{"adminToken": []}],
        "responses": {
            str(status): _response("Done.", answer),
            **{str(code): refused for code in sorted({400, 401, 403, 413, 415, 503, *fails})},
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return operation


def _open(summary: str, *statuses: int, media_type: str = "application/json") -> Document:
    answer = {"description": summary, "content": {media_type: {}}}
    return {
        "summary": summary,
        "tags": ["operation"],
        "responses": {str(status): answer for status in statuses},
    }


def _response(description: str, schema: Document) -> Document:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(properties: Document, *, optional: set[str] | None = None) -> Document:
    required = [name for name in properties if name not in (optional or ())]
    return {"type": "object", "properties": properties, "required": required}
