"""Issuers whose tokens are accepted beside those of the provider, as the configuration describes
them."""

from __future__ import annotations

from pydantic import Field

from gateway.config.scalars import (
    IssuerUrl,
    Name,
    Secret,
    Section,
    SignatureAlgorithm,
    Text,
    WebUrl,
)
from gateway.units import Duration, PositiveDuration


class JwtIssuerConfig(Section):
    """An issuer whose JWTs are accepted beside our own tokens."""

    name: Name = Field(description="Prefix of the client ids of this issuer: `NAME:ID`.")
    issuer: IssuerUrl = Field(description="Exact value of `iss` in its tokens.")
    jwks_uri: WebUrl = Field(
        description="URL of its keys; fetched at start and refreshed in the background."
    )
    audience: list[Text] = Field(
        min_length=1, description="The `aud` of its tokens must contain one of these."
    )
    algorithms: list[SignatureAlgorithm] = Field(
        ["ES256", "RS256"],
        min_length=1,
        description="Signature algorithms to accept from this issuer.",
    )
    clock_skew: Duration = Field(60.0, description="Tolerated difference between the clocks.")


class IntrospectionServerConfig(Section):
    """An issuer that is asked about tokens that are not ours (RFC 7662)."""

    name: Name = Field(description="Prefix of the client ids of this issuer: `NAME:ID`.")
    endpoint: WebUrl = Field(description="URL of its introspection endpoint (RFC 7662).")
    client_id: Text = Field(description="Client id of the gateway at that server.")
    client_secret: Secret = Field(
        description="Client secret of the gateway at that server; sent by HTTP Basic."
    )
    audience: list[Text] = Field(
        [], description="If given, the `aud` of its tokens must contain one of these."
    )
    token_prefix: str = Field(
        "", description="If given, only tokens with this prefix are sent to it."
    )
    default_ttl: PositiveDuration = Field(
        60.0, description="How long a token is cached if the response has no `exp`."
    )
