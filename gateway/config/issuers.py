"""Issuers whose tokens are accepted beside those of the provider, as the configuration describes
them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.scalars import (
    Bool,
    ClaimName,
    File,
    FileName,
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
    issuer: IssuerUrl = Field(
        description=(
            "Exact value of `iss` in its tokens. Its metadata (OpenID Connect Discovery, RFC 8414) "
            "says where its keys are, unless `jwks_uri` does."
        )
    )
    preset: Literal["keycloak", "entra", "okta", "auth0", "cognito", "kubernetes"] | None = Field(
        None,
        description=(
            "Which claims its tokens have, and what distinguishes access tokens; see the guide "
            "of each identity provider."
        ),
    )
    jwks_uri: WebUrl | None = Field(
        None,
        description=(
            "URL of its keys, if it is not to be discovered. Keys are fetched at start and "
            "refreshed in the background."
        ),
    )
    ca: File | None = Field(
        None,
        description=(
            "File with the authorities (PEM) that vouch for its server, in place of those of the "
            "system."
        ),
    )
    token_file: FileName | None = Field(
        None,
        description=(
            "File with a bearer token for its server, such as that of a service account; read "
            "again for each fetch. Needs https."
        ),
    )
    audience: list[Text] = Field(
        min_length=1, description="The `aud` of its tokens must contain one of these."
    )
    client_claim: ClaimName | None = Field(
        None,
        description=(
            "Claim with the id of the client, as a path such as `realm_access.roles`. Default: "
            "that of the preset, else the first of `client_id`, `azp` and `sub`."
        ),
    )
    subject_claim: ClaimName | None = Field(
        None,
        description=(
            "Claim with the subject (`X-Token-Subject`), as a path; a token without it has none. "
            "Default: that of the preset, else `sub`."
        ),
    )
    scope_claims: list[ClaimName] | None = Field(
        None,
        max_length=32,
        description=(
            "Claims with the scopes, as paths: lists, or texts separated by spaces. A token has "
            "the scopes of all of them. Default: that of the preset, else `scope` or `scp`."
        ),
    )
    typ: list[Text] = Field(
        ["at+jwt", "JWT"],
        min_length=1,
        max_length=16,
        description=(
            "What `typ` in the header of its tokens may be, whatever the case; `JWT` stands for no "
            "`typ`, too."
        ),
    )
    algorithms: list[SignatureAlgorithm] = Field(
        ["ES256", "RS256"],
        min_length=1,
        description="Signature algorithms to accept from this issuer.",
    )
    clock_skew: Duration = Field(60.0, description="Tolerated difference between the clocks.")
    access_tokens: Bool = Field(
        True,
        description=(
            "Whether routes accept its tokens. `false` for an issuer of workloads, whose tokens "
            "are only good for what `workloads` maps them to."
        ),
    )


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
