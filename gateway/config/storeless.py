"""The rules for a gateway without a store: it verifies the tokens of others, and issues none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.config.problems import Path
from gateway.config.routes import RouteConfig

PROVIDER_KEYS = frozenset({"issuer", "scopes", "dpop", "client_certificate_header", "seal_key"})
"""The keys of `provider` that verifying tokens needs."""
NEED_CLIENTS = frozenset({"api_key", "client_secret"})
SECTIONS = ("clients", "clients_dir", "clients_owner", "workloads", "identity_assertions")


def check_without_store(
    tree: Mapping[str, Any], routes: Mapping[int, RouteConfig]
) -> Iterator[tuple[Path, str]]:
    """Check a configuration with `store: none`."""
    provider = tree.get("provider")
    given = provider if isinstance(provider, dict) else {}
    for key in given:
        if key not in PROVIDER_KEYS:
            yield (
                ("provider", key),
                "needs a store: with store: none, no tokens are issued; remove it, or set store",
            )
    for section in SECTIONS:
        if section in tree:
            yield (
                (section,),
                "needs a store: with store: none, there are no clients",
            )
    dpop = given.get("dpop")
    if isinstance(dpop, dict) and dpop.get("require_nonce") is True and "seal_key" not in given:
        yield (
            ("provider", "dpop", "require_nonce"),
            "needs provider.seal_key with store: none: each process would know its own nonces only",
        )
    if isinstance(dpop, dict) and dpop.get("replay") == "store":
        yield (
            ("provider", "dpop", "replay"),
            "store needs a store: with store: none, each process remembers its own proofs",
        )
    listen = tree.get("listen")
    tls = listen.get("tls") if isinstance(listen, dict) else None
    if isinstance(tls, dict) and tls.get("acme") is not None:
        yield ("listen", "tls", "acme"), "needs a store, which the certificates are kept in"
    for at, route in routes.items():
        if needed := NEED_CLIENTS.intersection(route.credentials):
            place = ("routes", at, "credentials")
            yield place, f"{min(needed)} needs a store: with store: none, there are no clients"
    has_issuers = tree.get("jwt_issuers") or tree.get("introspection_servers")
    if not has_issuers and any(route.auth != "none" for route in routes.values()):
        yield (
            ("jwt_issuers",),
            "is required with store: none: no tokens are issued here, and no others are accepted",
        )
