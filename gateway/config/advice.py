"""Finds what works and is not what an operator may expect: `gateway check` warns of it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.config.model import Config
from gateway.config.problems import Path

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def find_warnings(config: Config) -> Iterator[tuple[Path, str]]:
    """Each warning, with the place of the value."""
    provider = config.provider
    issuer_path = urlsplit(provider.issuer).path.rstrip("/")
    if issuer_path and not provider.token_path.startswith(f"{issuer_path}/"):
        yield (
            ("provider", "issuer"),
            f"has a path, and the endpoints are not below it: expected token_path: {issuer_path}"
            f"{provider.token_path} and the like, or an issuer without a path",
        )
    registration = provider.registration
    where: Path = ("provider", "registration")
    if registration.mode != "open":
        return
    scopes = provider.default_scopes if registration.scopes is None else registration.scopes
    if provider.scopes and not scopes:
        gets = "no scope, and so no token"
        advice = "list some in `registration.scopes`"
    else:
        gets = f"the scopes {' '.join(scopes)}" if scopes else "tokens"
        advice = "mode token restricts that"
    yield (*where, "mode"), f"any peer can register a client, which gets {gets}: {advice}"
    for at, route in enumerate(config.routes):
        if needed := set(route.scopes) & set(registration.scopes or ()):
            yield (
                (*where, "scopes"),
                f"any peer can register for {' '.join(sorted(needed))}, which routes[{at}] "
                f"({route.name!r}) requires",
            )
    if TOKEN_EXCHANGE in (registration.grant_types or ()):
        yield (
            (*where, "grant_types"),
            "any peer can register for token exchange, and exchange tokens that it sees",
        )
