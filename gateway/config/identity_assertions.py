"""Identity assertions (ID-JAG) of identity providers, as the configuration describes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import Field

from gateway.config.problems import Path
from gateway.config.scalars import Name, Scope, Section
from gateway.config.workloads import ClientId, names_of_issuers, unknown_issuer
from gateway.units import PositiveDuration


class IdentityAssertionConfig(Section):
    """An identity provider whose word lets clients act for its users (ID-JAG)."""

    issuer: Name = Field(description="Name of the entry of `jwt_issuers` that signs them.")
    clients: list[ClientId] = Field(
        [],
        description=(
            "Clients that may use them; empty for each that is registered for the grant "
            "`urn:ietf:params:oauth:grant-type:jwt-bearer`."
        ),
    )
    scopes: list[Scope] | None = Field(
        None,
        description="Scopes that tokens may have, of those in it; default: the client's.",
    )
    token_ttl: PositiveDuration | None = Field(
        None, description="Lifetime of the access tokens; default: `provider.token_ttl`."
    )


def check_identity_assertions(
    tree: Mapping[str, Any], rules: Mapping[int, IdentityAssertionConfig], scopes: Collection[str]
) -> Iterator[tuple[Path, str]]:
    """Each rule of `identity_assertions` that does not fit the rest of the configuration."""
    names = names_of_issuers(tree)
    for at, rule in rules.items():
        where: Path = ("identity_assertions", at)
        if rule.issuer not in names and "jwt_issuers" in tree:
            yield (*where, "issuer"), unknown_issuer(rule.issuer)
        for number, scope in enumerate(rule.scopes or ()):
            if scope not in scopes:
                path = (*where, "scopes", number)
                yield path, f"scope {scope!r} is not one of provider.scopes"
