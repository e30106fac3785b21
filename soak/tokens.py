"""The tokens of a run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tokens:
    """Tokens by what they are good for."""

    good: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    """Since long enough ago that nobody may take them."""
    mcp: list[str] = field(default_factory=list)
    """For the MCP server."""
    api_keys: list[str] = field(default_factory=list)
