"""Which parts of a configuration a command does not need: their variables need not be set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.config.problems import Path

_TRAFFIC: tuple[Path, ...] = (
    ("access_log",), ("authz",), ("introspection_servers",), ("jwt_issuers",), ("listen",),
    ("rate_limit",), ("tracing",), ("upstreams",),
    *(
        ("routes", "*", key)
        for key in (
            "compress", "cors", "ip", "limits", "mirror", "rate_limit", "redirect",
            "request_headers", "respond", "response_headers", "rewrite", "split", "split_by",
            "upstream",
        )
    ),
)  # fmt: skip
_SECRETS: tuple[Path, ...] = (
    ("admin", "token"),
    ("clients",),
    ("clients_dir",),
    ("provider", "registration", "token"),
    ("provider", "users", "oidc"),
)
SEAL_KEY: Path = ("provider", "seal_key")

NOT_FOR_ISSUING: Collection[Path] = (*_TRAFFIC, *_SECRETS)
"""Not needed to issue a token directly."""
NOT_FOR_STORE: Collection[Path] = (*NOT_FOR_ISSUING, SEAL_KEY)
"""Not needed to read and change clients, users and tokens in the store."""
NOT_FOR_ROUTES: Collection[Path] = (("store",), *_SECRETS, SEAL_KEY)
"""Not needed to explain how a request is routed."""
