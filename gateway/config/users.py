"""The people for whom the authorization code grant is, as the configuration tells."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.scalars import IssuerUrl, Name, Scope, Secret, Section, SignatureAlgorithm
from gateway.units import Duration, PositiveDuration


class UpstreamOidc(Section):
    """The OpenID provider at which users sign in, and to which the gateway is a client."""

    name: Name = Field("oidc", description="What its users are called by: `NAME:SUBJECT`.")
    issuer: IssuerUrl = Field(description="Its issuer; the rest is found by discovery.")
    client_id: str = Field(min_length=1, description="Who we are to it.")
    client_secret: Secret = Field(description="Our secret there.")
    scopes: list[Scope] = Field(["openid"], description="What we ask it for; `openid` always.")
    subject_claim: str = Field(
        "sub", min_length=1, description="The claim of its id token that tells users apart."
    )
    algorithms: list[SignatureAlgorithm] = Field(
        ["ES256", "RS256"], min_length=1, description="Algorithms that it may sign with."
    )
    clock_skew: Duration = Field(60.0, description="How far its clock may be from ours.")


class Users(Section):
    """The people for whom the authorization code grant is."""

    source: Literal["store", "oidc"] = Field(
        "store",
        description="Who knows them: the store, by `gateway user`, or an OpenID provider.",
    )
    oidc: UpstreamOidc | None = Field(None, description="That provider (source `oidc`).")
    session_ttl: PositiveDuration = Field(28800.0, description="How long somebody stays signed in.")
    consent_ttl: Duration = Field(
        0.0, description="How long it is remembered what a user allowed a client; 0 is for ever."
    )
