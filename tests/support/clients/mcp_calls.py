"""Calls of MCP clients, and gateways that take them."""

from __future__ import annotations

import json
import re
from typing import Any

from support.running_gateway import RunningGateway

NEW, OLD = "2026-07-28", "2025-06-18"
RESOURCE = "http://gateway.test/mcp"


TOOLS = {"get_weather": ["weather"], "admin_*": ["admin"], "ping": [], "say:*": ["say"]}


def mcp_sections(**mcp: Any) -> dict[str, Any]:
    """A gateway with one route to an MCP server."""
    scopes = ["mcp", "weather", "admin", "say"]
    return {
        "provider": {"scopes": scopes, "default_scopes": ["mcp"]},
        "routes": [
            {
                "name": "mcp", "match": {"path": "/mcp"}, "upstream": "main", "scopes": ["mcp"],
                "mcp": {"tools": TOOLS} | mcp,
            },
            {"name": "api", "match": {"path": "/api"}, "upstream": "main"},
        ],
    }  # fmt: skip


async def token_for(gateway: RunningGateway, scope: str, resource: str = RESOURCE) -> str:
    """A token of a client of its own."""
    made = await gateway.create_client("", scope="mcp weather admin say", client_name=scope)
    form = {"grant_type": "client_credentials", "scope": scope, "client_id": made["client_id"],
            "client_secret": "secret"}  # fmt: skip
    if resource:
        form["resource"] = resource
    async with gateway.session.post(gateway.url("/token"), data=form) as response:
        assert response.status == 200, await response.text()
        token: str = (await response.json())["access_token"]
        return token


def call(name: Any = "get_weather", method: str = "tools/call", **more: Any) -> dict[str, Any]:
    """A message."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": name} | more}


def fields_of(name: str = "get_weather", version: str = NEW) -> dict[str, str]:
    """What clients of the newest revision send beside it."""
    return {"MCP-Protocol-Version": version, "Mcp-Method": "tools/call", "Mcp-Name": name}


class Sent:
    """The response to a message."""

    def __init__(self, status: int, reason: str, challenge: dict[str, str]) -> None:
        self.status = status
        self.reason = reason
        self.challenge = challenge

    @property
    def outcome(self) -> tuple[int, str]:
        return self.status, self.reason


async def send(
    gateway: RunningGateway, token: str, message: Any, headers: dict[str, str] | None = None,
    *, method: str = "POST",
) -> Sent:  # fmt: skip
    """Send a message, or bytes in place of one."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    fields = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    async with gateway.session.request(
        method, gateway.url("/mcp"), data=body, headers=fields | (headers or {})
    ) as response:
        text = await response.text()
        reason = json.loads(text).get("reason", "") if response.status >= 400 else ""
        challenge = response.headers.get("WWW-Authenticate", "")
        return Sent(response.status, reason, dict(re.findall(r'(\w+)="([^"]*)"', challenge)))
