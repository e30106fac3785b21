"""Requirements of routes on scopes and claims of tokens, as the configuration describes them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic.json_schema import WithJsonSchema

from gateway.claim_path import read_values
from gateway.config.scalars import ClaimName, Scope, Section

MAX_VALUES = 1000


class ScopeRules(Section):
    """Scopes of which one is enough, and those that are all needed."""

    any: list[Scope] = Field(
        [],
        max_length=MAX_VALUES,
        description="Scopes of which the token must have one; challenges name the first.",
    )
    all: list[Scope] = Field(
        [], max_length=MAX_VALUES, description="Scopes that the token must have, all of them."
    )


def _as_claim_value(value: Any) -> Any:
    values = read_values(value)
    if isinstance(value, float | list) or len(values) != 1:
        raise ValueError("expected text, a whole number, true or false")
    return values[0]


ClaimValue = Annotated[str, BeforeValidator(_as_claim_value), WithJsonSchema(
    {"type": ["string", "integer", "boolean"]}
)]  # fmt: skip


class ClaimValues(Section):
    """Values of a claim of which one is enough, and those that it must all have."""

    any: list[ClaimValue] = Field(
        [], max_length=MAX_VALUES, description="Values of which the claim must have one."
    )
    all: list[ClaimValue] = Field(
        [], max_length=MAX_VALUES, description="Values that the claim must have, all of them."
    )


def _kind(value: object) -> str:
    if isinstance(value, dict | Section):
        return "[mapping]"
    return "[list]" if isinstance(value, list) else "[text]"


def _kind_of_scopes(value: object) -> str:
    return "[mapping]" if isinstance(value, dict | Section) else "[list]"


RouteScopes = Annotated[
    Annotated[list[Scope], Tag("[list]")] | Annotated[ScopeRules, Tag("[mapping]")],
    Discriminator(_kind_of_scopes),
]
RouteClaim = Annotated[
    Annotated[ClaimValue, Tag("[text]")]
    | Annotated[list[ClaimValue], Field(min_length=1, max_length=MAX_VALUES), Tag("[list]")]
    | Annotated[ClaimValues, Tag("[mapping]")],
    Discriminator(_kind),
]
RouteClaims = dict[ClaimName, RouteClaim]
