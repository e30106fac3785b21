"""The OpenAPI document of everything that the gateway serves itself (`/openapi.json`).

It is made from the operations of the admin listener, which are also its routes, and from the
endpoints of the provider, which are at the issuer (`servers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from gateway import __version__
from gateway.admin.operations import JSON, Operation
from gateway.admin.problems import Problem
from gateway.oauth.client_metadata import REGISTRABLE, ClientMetadata
from gateway.oauth.endpoints import provider_operations
from gateway.oauth.endpoints.http import ErrorResponse, ProviderOperation
from gateway.oauth.parameters import FORM
from gateway.oauth.policy import ProviderPolicy

Document = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"
_API_ERRORS = (400, 401, 403, 413, 415, 429, 503)


def openapi_document(
    operations: Iterable[tuple[Operation, Any]], policy: ProviderPolicy
) -> Document:
    """The document (OpenAPI 3.1)."""
    paths: dict[str, Document] = {}
    schemas = _Schemas()
    for operation, _ in operations:
        described = _describe_operation(operation, schemas)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    for path, provided_there in provider_operations(policy).items():
        paths[path] = {"servers": [{"url": policy.origin}]}
        for method, provided in provided_there.items():
            paths[path][method.lower()] = _describe_provided(provided, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bearer-gateway",
            "version": __version__,
            "description": "The admin API, and the OAuth 2.0 provider at the issuer.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components(),
            "securitySchemes": {
                "adminToken": {"type": "http", "scheme": "bearer"},
                "registrationToken": {"type": "http", "scheme": "bearer"},
                "accessToken": {"type": "http", "scheme": "bearer"},
                "client": {"type": "http", "scheme": "basic"},
            },
        },
    }


class _Schemas:
    """Schemas of types; named ones become components that are referred to."""

    def __init__(self) -> None:
        self._known: Document = {}

    def of(self, kind: Any) -> Document:
        """The schema of a type."""
        (schema,), named = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
        self._known |= named
        return schema

    def components(self) -> Document:
        """All that were referred to."""
        self.of(ClientMetadata)
        metadata = self._known["ClientMetadata"]["properties"]
        self._known["ClientMetadata"]["properties"] = {
            name: {key: value for key, value in metadata[name].items() if key != "default"}
            for name in REGISTRABLE
        }
        return self._known


def _describe_operation(operation: Operation, schemas: _Schemas) -> Document:
    """An operation of the admin listener."""
    done = {} if operation.response is web.Response else {"schema": schemas.of(operation.response)}
    responses = {
        str(operation.status): {
            "description": "Done.", "content": {operation.media_type: done}
        }
    }  # fmt: skip
    described: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": ["operation" if operation.is_open else "admin"],
        "responses": responses,
    }
    if operation.is_open:
        same = responses[str(operation.status)]
        responses |= {str(status): same for status in operation.fails}
    else:
        problem = {"application/problem+json": {"schema": schemas.of(Problem)}}
        rejected = {"description": "Rejected; `reason` says why.", "content": problem}
        statuses = sorted({*_API_ERRORS, *operation.fails})
        responses |= {str(status): rejected for status in statuses}
        described["security"] = [{"adminToken": []}]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    if operation.query is not None:
        (_,), named = msgspec.json.schema_components([operation.query])
        properties = named[operation.query.__name__]["properties"]
        parameters += [
            {"name": name, "in": "query", "schema": schema} for name, schema in properties.items()
        ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"content": {JSON: {"schema": schemas.of(operation.body)}}}
    return described


def _describe_provided(operation: ProviderOperation, schemas: _Schemas) -> Document:
    """An operation of the provider."""
    described: Document = {"summary": operation.summary, "tags": ["provider"]}
    page = {"text/html": {"schema": {"type": "string"}}}
    responses: Document = {
        str(status): {"description": text, **({} if status == 303 else {"content": page})}
        for status, text in operation.pages.items()
    }
    if not operation.pages:
        done = {} if operation.response is None else _json(schemas.of(operation.response))
        responses[str(operation.status)] = {"description": "Done.", **done}
        error = {"description": "Rejected; `error` says why.", **_json(schemas.of(ErrorResponse))}
        errors: Sequence[int] = operation.fails
        if operation.security:
            errors = sorted({400, 413, 503, *operation.fails})
            responses["401"] = {"description": "Not authenticated.", **_json({})}
            described["security"] = [{operation.security: []}]
        responses |= {str(status): error for status in errors}
    described["responses"] = responses
    if operation.query:
        described["parameters"] = [
            {"name": name, "in": "query", "required": is_required, "schema": {"type": "string"}}
            for name, is_required in operation.query.items()
        ]
    if operation.form:
        properties = {name: {"type": "string"} for name in operation.form}
        form = {FORM: {"schema": {"type": "object", "properties": properties}}}
        described["requestBody"] = {"content": form}
    elif operation.json is not None:
        described["requestBody"] = _json(schemas.of(operation.json))
    return described


def _json(schema: Document) -> Document:
    return {"content": {JSON: {"schema": schema} if schema else {}}}
