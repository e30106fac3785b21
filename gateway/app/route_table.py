"""The routes of a configuration as plain rows, for people and programs."""

from __future__ import annotations

from typing import Any

from gateway.app.build.routes import describe_conditions, describe_destination
from gateway.config import Config


def list_routes(config: Config) -> list[dict[str, Any]]:
    """A row for each route and host, in the order in which the router prefers them."""
    rows = [
        {
            "host": host,
            "path": route.match.path,
            "exact": route.match.exact,
            "methods": list(route.match.methods),
            "name": route.name,
            "auth": route.auth,
            "scopes": list(route.scopes),
            "clients": list(route.clients),
            "upstream": route.upstream or describe_destination(route),
            "conditions": describe_conditions(route),
            "strip_prefix": route.rewrite.strip_prefix,
            "forward_token": route.forward_token,
        }
        for route in config.routes
        for host in (route.match.hosts or [""])
    ]
    return sorted(rows, key=_precedence)


def _precedence(row: dict[str, Any]) -> tuple[object, ...]:
    host = row["host"]
    host_rank = 2 if not host else 1 if host.startswith("*.") else 0
    return (
        host_rank, -len(host), host, not row["exact"], -len(row["path"]), row["path"],
        not row["methods"], -len(row["conditions"]),
    )  # fmt: skip
