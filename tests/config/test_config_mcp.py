"""What a route to an MCP server may not say."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.config import ConfigError, parse_config

BASE: dict[str, Any] = {
    "provider": {
        "scopes": ["mcp", "admin"], "grant_types": ["authorization_code"],
        "registration": {"mode": "public"},
    },
    "upstreams": {"tools": {"targets": ["http://127.0.0.1:9001"]}},
}  # fmt: skip


def problems(route: dict[str, Any], **provider: Any) -> str:
    """The problems of a route, and of the provider, as one text."""
    whole = {"name": "mcp", "match": {"path": "/mcp"}, "upstream": "tools"} | route
    tree = BASE | {"provider": BASE["provider"] | provider, "routes": [whole]}
    try:
        parse_config(yaml.safe_dump(tree), file="test.yaml")
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ({"mcp": {"tools": {"x": ["nope"]}}}, "routes[0].mcp.tools.x[0]: scope 'nope'"),
        ({"mcp": {"tools": {"a b": []}}}, "expected the name of a tool"),
        ({"mcp": {"tools": {"x": ["mcp"]}}, "auth": "none"}, "has no effect with auth none"),
        ({"mcp": {}, "forward_token": True}, "forward_token: must be false with mcp"),
        ({"mcp": {"tool_descriptions": {"x": "Do x"}}}, "is not one of tools"),
        ({"mcp": {"versions": ["newest"]}}, "expected a revision in quotes"),
        ({"mcp": {"origins": ["app.example"]}}, "routes[0].mcp.origins[0]"),
    ],
)
def test_mistake_is_named_with_its_place(route: dict[str, Any], says: str) -> None:
    assert says in problems(route)


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        ({"grant_types": ["client_credentials"]}, "public is for clients that act for users"),
        ({"registration": {"mode": "off", "redirect_hosts": ["a.example"]}}, "no effect without"),
        ({"registration": {"mode": "public", "fail_if_present": False}}, "must be true with mode"),
        ({"client_id_metadata_documents": {"hosts": ["a.example"]}}, "no effect without enabled"),
        ({"grant_types": ["client_credentials"], "registration": {"mode": "off"},
          "client_id_metadata_documents": {"enabled": True}}, "is for clients that act for users"),
    ],
)  # fmt: skip
def test_mistake_of_the_provider_is_named(provider: dict[str, Any], says: str) -> None:
    assert says in problems({"mcp": {}}, **provider)


def test_sound_route_is_taken() -> None:
    tools = {"get_*": [], "drop": ["admin"]}
    route = {"mcp": {"tools": tools, "tool_descriptions": {"drop": "Drop the database"}}}
    assert problems(route) == ""
