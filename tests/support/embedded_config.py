"""A configuration for gateways that an application embeds."""

from __future__ import annotations

from typing import Any

ISSUER = "https://api.test"


def config(**provider: Any) -> dict[str, Any]:
    """Keys and values of a configuration."""
    return {
        "provider": {
            "issuer": ISSUER,
            "scopes": ["orders:read", "orders:write"],
            "default_scopes": ["orders:read"],
            "registration": {"mode": "token", "token": "test-registration-token"},
            **provider,
        }
    }
