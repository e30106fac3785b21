"""The OAuth 2.0 provider's part of the configuration, and whose tokens it takes beside its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.scalars import (
    Audience,
    Bool,
    HeaderName,
    IssuerUrl,
    Name,
    Path,
    Scope,
    Secret,
    Section,
    SignatureAlgorithm,
    UrlPrefix,
    WebUrl,
)
from gateway.config.users import Users
from gateway.units import Duration, Int, PositiveDuration


class Registration(Section):
    """Who may register clients over HTTP."""

    mode: Literal["token", "open", "off"] = Field(
        "token", description="`token` asks for the token below, `open` for nothing, `off` refuses."
    )
    token: Secret | None = Field(
        None, description="Bearer token of those who may register clients (mode `token`)."
    )
    fail_if_present: Bool = Field(
        True,
        description="Answer 409 for a client id that is taken; "
        "false replaces the client and revokes its tokens.",
    )
    jwks_uris: list[UrlPrefix] = Field(
        [],
        description="Beginnings of the `jwks_uri` that a registration over HTTP may name; "
        "empty: none, since the gateway will call them.",
    )


class Jwt(Section):
    """How access tokens that are JWTs are signed."""

    algorithm: Literal["ES256", "EdDSA"] = Field("ES256", description="Algorithm of the signature.")
    rotate_every: PositiveDuration = Field(
        2592000.0, description="How long a key signs; the next one is published a day ahead."
    )


class FailedClientLimit(Section):
    """Stops guessing of secrets, per client id and source address."""

    failures: Int = Field(5, ge=1, description="Failures after which the response is 429.")
    window: PositiveDuration = Field(
        600.0, description="The period they are counted in, from the first one."
    )


class RefreshTokens(Section):
    """Refresh tokens, for clients whose `grant_types` list `refresh_token`."""

    strategy: Literal["none", "reusable", "rotating"] = Field(
        "none",
        description="`none`: there are none. `reusable`: a client keeps the one it got. "
        "`rotating`: each use replaces it, and using an old one ends them all.",
    )
    ttl: PositiveDuration = Field(
        2592000.0, description="How long one lives that is not used; each use begins anew."
    )
    max_ttl: PositiveDuration = Field(
        15552000.0,
        description="How long one and all that follow from it live together, however often "
        "they are used.",
    )
    reuse_grace: Duration = Field(
        10.0,
        le=60,
        description="How long a client may ask again with a token that was replaced, if the "
        "answer was lost, and gets the same one; 60s at most.",
    )


class Dpop(Section):
    """Tokens that are bound to a key of the client (RFC 9449)."""

    require_nonce: Bool = Field(
        False, description="Ask for a nonce in every proof, so that none is made ahead of time."
    )
    max_age: PositiveDuration = Field(
        60.0,
        le=300,
        description="How old a proof may be, and how far ahead the client's clock; a stolen one "
        "could be shown for that long to each process that has not seen it; 5m at most.",
    )


class Provider(Section):
    """The OAuth 2.0 provider."""

    issuer: IssuerUrl = Field(
        "http://127.0.0.1:8080", description="URL of this provider; never derived from Host."
    )
    token_path: Path = Field("/token", description="Path of the token endpoint.")
    create_client_path: Path = Field(
        "/createClient", description="Path of the registration endpoint."
    )
    validate_path: Path = Field("/validate", description="Path of the validation endpoint.")
    revoke_path: Path = Field("/revoke", description="Path of the revocation endpoint.")
    introspect_path: Path = Field("/introspect", description="Path of the introspection endpoint.")
    register_path: Path = Field(
        "/register", description="Path of dynamic client registration and its management."
    )
    authorize_path: Path = Field(
        "/authorize",
        description="Path of the authorization endpoint; its pages are below it.",
    )
    token_ttl: PositiveDuration = Field(3600.0, description="How long an access token lives.")
    code_ttl: PositiveDuration = Field(
        60.0, description="How long an authorization code is good for; at most 10m."
    )
    client_ttl: Duration = Field(
        2592000.0, description="How long a client lives unless renewed; 0 is for ever."
    )
    client_expiry_warning: Duration = Field(
        604800.0, description="How long before its end a client is warned of."
    )
    expired_client_retention: Duration = Field(
        2592000.0, description="How long an expired client is kept and can be renewed."
    )
    grant_types: list[
        Literal[
            "client_credentials",
            "authorization_code",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ]
    ] = Field(["client_credentials"], min_length=1, description="Grants that the provider gives.")
    refresh_tokens: RefreshTokens = Field(
        default_factory=RefreshTokens,
        description="Refresh tokens; with a strategy, the provider gives the grant "
        "`refresh_token`, too.",
    )
    scopes: list[Scope] = Field([], description="All scopes there are; empty: scopes are unused.")
    default_scopes: list[Scope] = Field(
        [], description="Scopes of a token for which none were asked."
    )
    audiences: list[Audience] = Field(
        [],
        description="Resources that tokens can be asked for by `resource`, beside the routes "
        "of this gateway.",
    )
    token_format: Literal["opaque", "jwt"] = Field(
        "opaque",
        description="What access tokens look like where neither the client nor the route says.",
    )
    jwt: Jwt = Field(default_factory=Jwt, description="How JWTs are signed.")
    seal_key: Secret | None = Field(
        None,
        description="Seals private keys in the store; the same for all processes on it, at "
        "least 32 characters. Without it, `seal_key_file` is used.",
    )
    seal_key_file: str = Field(
        "./gateway.key",
        min_length=1,
        description="File with that secret, made when it is first needed.",
    )
    users: Users = Field(
        default_factory=Users, description="The people for whom the authorization code grant is."
    )
    dpop: Dpop = Field(
        default_factory=Dpop, description="Tokens that are bound to a key of the client."
    )
    client_certificate_header: HeaderName | None = Field(
        None,
        description="Field in which `trusted_proxies` hand on the client's certificate: RFC 9440, "
        "escaped PEM, or Envoy's.",
    )
    credentials_in: list[Literal["basic", "form", "header", "query"]] = Field(
        ["basic", "form", "header"],
        min_length=1,
        description="Where clients may put their credentials.",
    )
    registration: Registration = Field(
        default_factory=Registration, description="Who may register clients over HTTP."
    )
    failed_client_limit: FailedClientLimit = Field(
        default_factory=FailedClientLimit, description="Stops guessing of secrets."
    )


class JwtIssuer(Section):
    """An issuer whose JWTs are accepted beside our own tokens."""

    name: Name = Field(description="What its clients are called by: `NAME:ID`.")
    issuer: IssuerUrl = Field(description="The `iss` of its tokens, exactly.")
    jwks_uri: WebUrl = Field(description="Where its keys are; fetched ahead of need.")
    audience: list[str] = Field(
        min_length=1, description="The `aud` of its tokens must name one of these."
    )
    algorithms: list[SignatureAlgorithm] = Field(
        ["ES256", "RS256"], min_length=1, description="Algorithms that it may sign with."
    )
    clock_skew: Duration = Field(60.0, description="How far its clock may be from ours.")


class IntrospectionServer(Section):
    """An issuer that is asked about tokens that are not ours (RFC 7662)."""

    name: Name = Field(description="What its clients are called by: `NAME:ID`.")
    endpoint: WebUrl = Field(description="Its introspection endpoint.")
    client_id: str = Field(min_length=1, description="Who we are to it.")
    client_secret: Secret = Field(description="Our secret there; sent by HTTP Basic.")
    audience: list[str] = Field(
        [], description="If given, the `aud` of its tokens must name one of these."
    )
    token_prefix: str = Field("", description="Only tokens that begin so are asked about.")
    default_ttl: PositiveDuration = Field(
        60.0, description="How long a token is believed whose end it does not tell."
    )
