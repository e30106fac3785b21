"""The part of the OpenAPI document about how the gateway is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Document = dict[str, Any]

_SHARE: Document = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_SECONDS: Document = {"type": ["number", "null"], "minimum": 0}
_QUANTILES: Document = {
    "type": "object",
    "properties": {"p50": _SECONDS, "p95": _SECONDS, "p99": _SECONDS},
}
_COUNT: Document = {"type": "integer", "minimum": 0}
_TEXT: Document = {"type": "string"}
_REQUEST: Document = {
    "type": "object",
    "properties": {
        "method": _TEXT, "url": _TEXT, "source": _TEXT,
        "headers": {"type": "object", "additionalProperties": _TEXT},
    },
}  # fmt: skip
_OVERVIEW: Document = {
    "type": "object",
    "properties": {
        "requests_per_second": {"type": "number", "minimum": 0},
        "error_share": _SHARE,
        "request_seconds": _QUANTILES,
        "upstream_seconds": _QUANTILES,
        "cache_hit_ratio": _SHARE,
        "tokens_issued": _COUNT,
        "inflight_requests": _COUNT,
        "connections": _COUNT,
        "store": {"type": "string", "enum": ["ok", "unavailable", "rejects writes"]},
        "workers": _COUNT,
    },
}


def status_paths(admin_operation: Callable[..., Document]) -> Document:
    """The paths that only tell."""
    limit = {
        "name": "limit", "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
    }  # fmt: skip
    after = {"name": "after", "in": "query", "schema": _TEXT}
    return {
        "/api/v1/overview": {"get": admin_operation("Tell how it goes", _OVERVIEW)},
        "/api/v1/routes": {"get": admin_operation("List the routes", _list("routes"))},
        "/api/v1/explain": {
            "post": admin_operation(
                "Tell what would become of a request", {"type": "object"}, _REQUEST
            )
        },
        "/api/v1/upstreams": {
            "get": admin_operation("List upstreams and their targets", _list("upstreams"))
        },
        "/api/v1/events": {
            "get": admin_operation(
                "Tell what was out of the ordinary lately", _list("events"), parameters=[limit]
            )
        },
        "/api/v1/audit": {
            "get": admin_operation(
                "List changes, newest first",
                _list("entries", next={"type": ["string", "null"]}),
                parameters=[after, limit],
            )
        },
    }


def _list(name: str, **more: Document) -> Document:
    items = {"type": "array", "items": {"type": "object"}}
    return {"type": "object", "properties": {name: items, **more}, "required": [name, *more]}
