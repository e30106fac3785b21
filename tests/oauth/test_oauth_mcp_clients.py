"""What MCP clients send when they register, replayed: each is registered, and can sign in.

As their sources and bug trackers have it in autumn 2026: anthropics/claude-code#10439,
erp-mafia/accounted#2225 and different-ai/openwork#3059 (Cursor), microsoft/vscode#278512,
modelcontextprotocol/inspector (client/src/lib/auth.ts), elmohq/elmo#684 (Codex, OpenCode).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.clients.browser import Browser, open_door, redeem, reported
from support.provider import JSON, Provider

from gateway.app.build.provider import provider_policy
from gateway.config import parse_config

CONFIG = Path(__file__).parents[2] / "config" / "mcp.yaml"
GRANTS = ["authorization_code", "refresh_token"]
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
PUBLIC = {
    "grant_types": GRANTS, "response_types": ["code"], "token_endpoint_auth_method": "none",
}  # fmt: skip
CLIENTS: dict[str, tuple[dict[str, Any], str]] = {
    # What it sends, and where it wants the response: at a port that is free by then.
    "claude-code": (
        {
            **PUBLIC, "client_name": "Claude Code (weather)", "application_type": "native",
            "redirect_uris": ["http://localhost:3118/callback"],
        },
        "http://localhost:56648/callback",
    ),
    "claude.ai": (
        {
            "client_name": "Claude", "grant_types": GRANTS, "response_types": ["code"],
            "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
            "token_endpoint_auth_method": "client_secret_post", "scope": "mcp weather:read",
        },
        "https://claude.ai/api/mcp/auth_callback",
    ),
    "cursor": (
        {
            **PUBLIC, "client_name": "Cursor",
            "redirect_uris": [
                "cursor://anysphere.cursor-mcp/oauth/callback",
                "https://www.cursor.com/agents/mcp/oauth/callback",
                "http://localhost:8787/callback",
            ],
        },
        "cursor://anysphere.cursor-mcp/oauth/callback",
    ),
    "vscode": (
        {
            **PUBLIC, "client_name": "Visual Studio Code", "grant_types": [*GRANTS, DEVICE],
            "client_uri": "https://code.visualstudio.com", "application_type": "native",
            "redirect_uris": [
                "https://insiders.vscode.dev/redirect", "https://vscode.dev/redirect",
                "http://127.0.0.1/", "http://127.0.0.1:33418/",
            ],
        },
        "http://127.0.0.1:59656/",
    ),
    "inspector": (
        {
            **PUBLIC, "client_name": "MCP Inspector", "scope": "mcp weather:read admin openid",
            "client_uri": "https://github.com/modelcontextprotocol/inspector",
            "redirect_uris": [
                "http://localhost:6274/oauth/callback", "http://localhost:6274/oauth/callback/debug",
            ],
        },
        "http://localhost:6274/oauth/callback",
    ),
    "codex": (
        {
            **PUBLIC, "client_name": "Codex", "application_type": "native",
            "redirect_uris": ["http://127.0.0.1:37819/callback/a1b2"],
        },
        "http://127.0.0.1:37819/callback/a1b2",
    ),
    "opencode": (
        {
            "client_name": "OpenCode", "client_uri": "https://opencode.ai", "grant_types": GRANTS,
            "response_types": ["code"], "token_endpoint_auth_method": "none",
            "redirect_uris": ["http://127.0.0.1:19876/mcp/oauth/callback"], "logo_uri": "",
        },
        "http://127.0.0.1:19876/mcp/oauth/callback",
    ),
}  # fmt: skip


async def open_example(provider: Provider) -> None:
    """The provider of config/mcp.yaml, with the user `alice`."""
    config = parse_config(CONFIG.read_text("utf-8"), file="mcp.yaml")
    await open_door(provider)
    provider.use(provider_policy(config))


@pytest.mark.parametrize("name", CLIENTS)
async def test_client_registers_as_it_does_and_signs_its_user_in(
    provider: Provider, name: str
) -> None:
    await open_example(provider)
    members, redirect_uri = CLIENTS[name]
    made = await provider.fetch("POST", "/register", JSON, json.dumps(members))
    assert made.status == 201, made.body
    kept = made.json
    assert kept["redirect_uris"] == members["redirect_uris"], "all that it may use"
    assert kept["grant_types"] == GRANTS
    assert kept["token_endpoint_auth_method"] == "none"
    assert "client_secret" not in kept
    who = {"client_id": kept["client_id"], "redirect_uri": redirect_uri}
    code = reported(
        await Browser(provider).allow(
            **who, scope="mcp weather:read openid", resource="http://127.0.0.1:8080/mcp"
        )
    )["code"]
    reply = await redeem(provider, code, who={}, **who, resource="http://127.0.0.1:8080/mcp/")
    assert (reply.status, reply.json["scope"]) == (200, "mcp weather:read")
    assert reply.json["refresh_token"]
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.claims["aud"] == ["http://127.0.0.1:8080/mcp"]


async def test_site_that_is_not_listed_registers_nothing(provider: Provider) -> None:
    await open_example(provider)
    members = PUBLIC | {"redirect_uris": ["https://evil.example/callback", "evil://x"]}
    reply = await provider.fetch("POST", "/register", JSON, json.dumps(members))
    assert reply.error == (400, "invalid_redirect_uri")
