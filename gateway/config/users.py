"""Users of the authorization code grant, as the configuration describes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.scalars import (
    Bool,
    File,
    HostName,
    IssuerUrl,
    Name,
    Scope,
    Secret,
    Section,
    SignatureAlgorithm,
    Text,
)
from gateway.units import Duration, PositiveDuration

NonEmpty = Annotated[str, Field(min_length=1)]


class UpstreamOidc(Section):
    """The OpenID provider at which users sign in, and to which the gateway is a client."""

    name: Name = Field(
        "oidc", description="Prefix of the usernames of this provider: `NAME:SUBJECT`."
    )
    issuer: IssuerUrl = Field(
        description="Issuer URL of the OpenID provider; its endpoints are discovered."
    )
    client_id: Text = Field(description="Client id of the gateway at that server.")
    client_secret: Secret = Field(description="Client secret of the gateway at that server.")
    scopes: list[Scope] = Field(
        ["openid"], description="Scopes to request; `openid` is always added."
    )
    subject_claim: Text = Field(
        "sub", description="Claim of the ID token that identifies the user."
    )
    algorithms: list[SignatureAlgorithm] = Field(
        ["ES256", "RS256"],
        min_length=1,
        description="Signature algorithms to accept from this issuer.",
    )
    clock_skew: Duration = Field(60.0, description="Tolerated difference between the clocks.")
    require_verified_email: Bool = Field(
        True,
        description=(
            "Whether an `email` without `email_verified` is rejected where the address is the "
            "subject or decides. One with `email_verified: false` always is."
        ),
    )
    allowed_domains: list[HostName] = Field(
        [],
        description=(
            "If given, only users with a verified address in one of these domains, or with "
            "`hd` (Google), may sign in."
        ),
    )
    allowed_groups: list[NonEmpty] = Field(
        [], description="If given, only members of one of these groups may sign in."
    )
    groups_claim: str = Field(
        "groups", min_length=1, description="Claim of the ID token that lists groups."
    )
    allowed_users: list[NonEmpty] = Field(
        [], description="If given, only these subjects (of `subject_claim`) may sign in."
    )


class PagesConfig(Section):
    """How the sign-in and consent pages look."""

    title: Annotated[str, Field(min_length=1, max_length=60)] | None = Field(
        None, description="Name at the top of the sign-in and consent pages (default: the host)."
    )
    logo: File | None = Field(
        None,
        description=(
            "File with a picture that is shown beside the name: SVG, PNG, JPEG or WebP, at most "
            "256 KiB."
        ),
    )
    scopes: dict[Scope, Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        {},
        description="What each scope permits, in words for users; the consent page shows them.",
    )


class Users(Section):
    """The users of the authorization code grant."""

    source: Literal["store", "oidc"] = Field(
        "store",
        description=(
            "Where users come from: the `store` (`gateway user`), or an OpenID provider (`oidc`)."
        ),
    )
    oidc: UpstreamOidc | None = Field(None, description="That provider (source `oidc`).")
    session_ttl: PositiveDuration = Field(28800.0, description="Lifetime of a sign-in session.")
    consent_ttl: Duration = Field(
        0.0, description="How long a user's consent is remembered; 0 for no expiry."
    )
    pages: PagesConfig = Field(
        default_factory=PagesConfig, description="How the sign-in and consent pages look."
    )
