"""The OAuth 2.0 provider's part of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gateway.config.credentials import ApiKeysConfig
from gateway.config.scalars import (
    Audience,
    Bool,
    FileName,
    GrantType,
    HeaderName,
    Host,
    IssuerUrl,
    Network,
    Origin,
    Path,
    Scope,
    Secret,
    Section,
    UriScheme,
    UrlPrefix,
)
from gateway.config.users import Users
from gateway.units import Duration, Int, PositiveDuration


class RegistrationRateLimit(Section):
    """How many clients may be registered."""

    requests: Int = Field(60, ge=1, description="Registrations in each period `per`.")
    per: PositiveDuration = Field(3600.0, description="Period of the limit.")
    burst: Int | None = Field(
        None, ge=1, description="Registrations allowed in a burst; default: as `requests`."
    )


class Registration(Section):
    """Registration of clients over HTTP."""

    mode: Literal["token", "public", "open", "off"] = Field(
        "token",
        description=(
            "Who may register clients over HTTP: holders of `registration.token`; anyone, but "
            "only public clients that act for users (`public`); anyone (`open`); or no one "
            "(`off`)."
        ),
    )
    token: Secret | None = Field(
        None, description="Bearer token that authorizes registrations in mode `token`."
    )
    fail_if_present: Bool = Field(
        True,
        description=(
            "`true`: a client id that is taken gets 409. `false`: a client that was registered "
            "over HTTP is replaced, and its tokens are revoked if the secret is another one; not "
            "in mode `open`. What operators set stays."
        ),
    )
    scopes: list[Scope] | None = Field(
        None,
        description=(
            "Scopes that a client gets by a registration over HTTP. Default: "
            "`provider.default_scopes` in modes `open` and `public`, all in mode `token`."
        ),
    )
    grant_types: list[GrantType] | None = Field(
        None,
        min_length=1,
        description=(
            "Grants that a client gets by a registration over HTTP. Default: those of the "
            "provider; in mode `open`, all but token exchange and the JWT bearer grant."
        ),
    )
    rate_limit: RegistrationRateLimit = Field(
        default_factory=RegistrationRateLimit,
        description=(
            "How many clients each address (of IPv6: each /64 network) may register in modes "
            "`open` and `public`; more get 429."
        ),
    )
    total_rate_limit: RegistrationRateLimit = Field(
        default_factory=lambda: RegistrationRateLimit(requests=1000),
        description=(
            "How many clients all addresses together may register in modes `open` and `public`; "
            "more get 429."
        ),
    )
    unused_ttl: Duration = Field(
        86400.0,
        description=(
            "How long a client that was registered in mode `open` or `public` is kept until it "
            "gets its first token; then it has `provider.client_ttl`. 0 for `client_ttl` from the "
            "start."
        ),
    )
    redirect_schemes: list[UriScheme] = Field(
        [],
        description=(
            "Schemes that redirect URIs of applications may have, such as `cursor` and `vscode`, "
            "beside those of `provider.redirect_schemes`. In mode `public`, no others are taken "
            "beside http on a loopback address and https at `redirect_hosts`."
        ),
    )
    redirect_hosts: list[Host] = Field(
        [],
        description=(
            "Hosts that https redirect URIs may name in mode `public`, `*.` for all below one; "
            "empty for none."
        ),
    )
    jwks_uris: list[UrlPrefix] = Field(
        [],
        description=(
            "Prefixes of the `jwks_uri` values that a registration over HTTP may have, since "
            "the gateway fetches them; empty for none."
        ),
    )


class ClientDocumentsConfig(Section):
    """Clients whose id is the URL of their metadata (Client ID Metadata Documents)."""

    enabled: Bool = Field(
        False, description="Whether client ids may be https URLs, which the gateway fetches."
    )
    hosts: list[Host] = Field(
        [],
        description="Hosts of such URLs, `*.` for all below one; empty for any public host.",
    )
    networks: list[Network] = Field(
        [],
        description=(
            "Networks that are not public and hold such hosts. Others are never called, whatever "
            "DNS says."
        ),
    )


class JwtConfig(Section):
    """How access tokens that are JWTs are signed."""

    algorithm: Literal["ES256", "EdDSA"] = Field(
        "ES256", description="Signature algorithm of JWT access tokens."
    )
    rotate_every: PositiveDuration = Field(
        2592000.0,
        description="How long a signing key is used; the next one is published a day ahead.",
    )


class FailedClientLimit(Section):
    """Stops guessing of secrets, per client id and source address."""

    failures: Int = Field(
        5,
        ge=1,
        description=(
            "Failed authentications of a client id or username from one address, after which "
            "it gets 429."
        ),
    )
    window: PositiveDuration = Field(
        600.0, description="Period in which failures are counted, from the first one."
    )


class RefreshTokensConfig(Section):
    """Refresh tokens, for clients whose `grant_types` list `refresh_token`."""

    strategy: Literal["none", "reusable", "rotating"] = Field(
        "none",
        description=(
            "`none`: no refresh tokens. `reusable`: a client keeps its refresh token. "
            "`rotating`: each use replaces it, and use of a replaced one revokes the family."
        ),
    )
    ttl: PositiveDuration = Field(
        2592000.0, description="Lifetime of a refresh token that is not used; each use resets it."
    )
    max_ttl: PositiveDuration = Field(
        15552000.0,
        description="Longest lifetime of a refresh-token family, however often it is used.",
    )
    reuse_grace: Duration = Field(
        10.0,
        le=60,
        description=(
            "How long a replaced refresh token may be used again, if the response was lost; "
            "it returns the same new token. At most 60s."
        ),
    )


class Dpop(Section):
    """Tokens that are bound to a key of the client (RFC 9449)."""

    require_nonce: Bool = Field(
        False,
        description=(
            "Whether every DPoP proof must hold a nonce of the gateway, so that none can be "
            "made ahead of time."
        ),
    )
    max_age: PositiveDuration = Field(
        60.0,
        le=300,
        description=(
            "How old a DPoP proof may be, and how far ahead the client's clock. With `replay: "
            "process`, a stolen proof could be replayed for that long to each process that has not "
            "seen it. At most 5m."
        ),
    )
    replay: Literal["process", "store"] = Field(
        "process",
        description=(
            "Where the DPoP proofs of requests with a token are remembered: by each `process`, or "
            "in the `store`, for all processes and replicas, which costs each of these requests a "
            "write. The token endpoint always uses the store."
        ),
    )


def _read_origins(origins: Any) -> Any:
    return [] if origins == "registered" else origins


class ProviderCorsConfig(Section):
    """Which pages of other origins may call the provider's endpoints."""

    origins: Annotated[list[Origin], BeforeValidator(_read_origins)] = Field(
        [],
        description=(
            "Origins such as https://app.example, `https://*.example.com`, or `*`; beside "
            "those of the redirect URIs of registered clients. `registered`, the default, is "
            "those alone."
        ),
    )


class ProviderConfig(Section):
    """The OAuth 2.0 provider."""

    issuer: IssuerUrl = Field(
        "http://127.0.0.1:8080",
        description="URL of this provider, as clients see it; never derived from Host.",
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
    token_ttl: PositiveDuration = Field(3600.0, description="Lifetime of an access token.")
    code_ttl: PositiveDuration = Field(
        60.0, description="Lifetime of an authorization code; at most 10m."
    )
    client_ttl: Duration = Field(
        2592000.0, description="Lifetime of a client registration unless renewed; 0 for no expiry."
    )
    client_renewal: Literal["public", "all", "none"] = Field(
        "public",
        description=(
            "Which clients have their registration extended whenever they authenticate: those "
            "without a secret (`public`), `all`, or `none`."
        ),
    )
    client_expiry_warning: Duration = Field(
        604800.0,
        description="How long before a registration expires it is reported in log and metrics.",
    )
    expired_client_retention: Duration = Field(
        2592000.0,
        description="How long an expired client is kept and can be renewed before it is deleted.",
    )
    grant_types: list[
        Literal[
            "client_credentials",
            "authorization_code",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ]
    ] = Field(
        ["client_credentials"], min_length=1, description="Grants that the provider supports."
    )
    refresh_tokens: RefreshTokensConfig = Field(
        default_factory=RefreshTokensConfig,
        description="Refresh tokens; with a strategy, the provider gives the grant "
        "`refresh_token`, too.",
    )
    scopes: list[Scope] = Field([], description="All scopes; if empty, scopes are not used.")
    default_scopes: list[Scope] = Field(
        [], description="Scopes of a token whose request names none."
    )
    audiences: list[Audience] = Field(
        [],
        description=(
            "Resources that token requests may name by `resource`, beside the routes of this "
            "gateway."
        ),
    )
    token_format: Literal["opaque", "jwt"] = Field(
        "opaque",
        description="Format of access tokens, unless the client or the route says otherwise.",
    )
    jwt: JwtConfig = Field(default_factory=JwtConfig, description="How JWTs are signed.")
    seal_key: Secret | None = Field(
        None,
        description=(
            "Secret that encrypts private keys in the store; the same for all processes on "
            "it, at least 32 characters. Without it, `seal_key_file` is used."
        ),
    )
    seal_key_file: FileName = Field(
        "./gateway.key",
        description=(
            "File with the secret that encrypts private keys; created when it is first needed."
        ),
    )
    users: Users = Field(
        default_factory=Users, description="The users of the authorization code grant."
    )
    dpop: Dpop = Field(
        default_factory=Dpop, description="Tokens that are bound to a key of the client."
    )
    client_certificate_header: HeaderName | None = Field(
        None,
        description=(
            "Header field in which `trusted_proxies` pass on the client's certificate: RFC "
            "9440, escaped PEM, or Envoy's format."
        ),
    )
    credentials_in: list[Literal["basic", "form", "header", "query"]] = Field(
        ["basic", "form", "header"],
        min_length=1,
        description="Where clients may send their credentials and other parameters.",
    )
    registration: Registration = Field(
        default_factory=Registration, description="Who may register clients over HTTP."
    )
    client_id_metadata_documents: ClientDocumentsConfig = Field(
        default_factory=ClientDocumentsConfig,
        description="Clients whose id is the URL of their metadata, in place of a registration.",
    )
    cors: ProviderCorsConfig = Field(
        default_factory=ProviderCorsConfig,
        description="Which pages of other origins may call the provider's endpoints.",
    )
    redirect_schemes: list[UriScheme] = Field(
        [],
        description=(
            "Schemes that redirect URIs of applications may have, such as `cursor`, beside "
            "https, http on a loopback address, and schemes with a dot."
        ),
    )
    api_keys: ApiKeysConfig = Field(
        default_factory=ApiKeysConfig,
        description="API keys of clients, for routes whose `credentials` list `api_key`.",
    )
    failed_client_limit: FailedClientLimit = Field(
        default_factory=FailedClientLimit, description="Stops guessing of secrets."
    )
