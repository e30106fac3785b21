"""Clients that the configuration declares."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from gateway.config.routes import RateLimitConfig
from gateway.config.scalars import (
    Bool,
    GrantType,
    Scope,
    Secret,
    Section,
    Text,
    WebUrl,
)
from gateway.oauth.models import AuthMethod

# RFC 9106 and the PHC string format: what `gateway client hash` prints.
_ARGON2ID = re.compile(
    r"\$argon2id\$v=19\$m=[0-9]{1,7},t=[0-9]{1,3},p=[0-9]{1,2}"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)


def _check_hash(secret_hash: SecretStr) -> SecretStr:
    if not _ARGON2ID.fullmatch(secret_hash.get_secret_value()):
        raise ValueError("expected an argon2id hash, as `gateway client hash` prints it")
    return secret_hash


def _read_jwks(jwks: Any) -> Any:
    if not isinstance(jwks, str):
        return jwks
    try:
        return json.loads(jwks)
    except ValueError:
        raise ValueError("expected a JSON Web Key Set (RFC 7517)") from None


SecretHash = Annotated[SecretStr, AfterValidator(_check_hash)]
Jwks = Annotated[dict[str, Any], BeforeValidator(_read_jwks)]


class ClientConfig(Section):
    """A client. Keys have the names and meanings of RFC 7591 unless noted otherwise."""

    client_name: Text | None = Field(
        None, description="Name that users and operators see; default: the client id."
    )
    secret: Secret | None = Field(
        None,
        description=(
            "Its secret, from a file: `${file:PATH}`. A secret in the configuration itself is "
            "rejected."
        ),
    )
    secret_hash: SecretHash | None = Field(
        None, description="Hash of its secret in place of `secret`: `gateway client hash`."
    )
    previous_secret: Secret | None = Field(
        None,
        description="A secret that works, too, while clients move to the new one: `${file:PATH}`.",
    )
    previous_secret_hash: SecretHash | None = Field(
        None, description="Hash of that secret in place of `previous_secret`."
    )
    scopes: list[Scope] | None = Field(
        None, description="Scopes that it may ask for; default: `provider.scopes`."
    )
    grant_types: list[GrantType] = Field(
        ["client_credentials"], min_length=1, description="Grants that it may use."
    )
    token_endpoint_auth_method: AuthMethod | None = Field(
        None,
        description=(
            "How it authenticates; default: by its secret, or by its keys (`private_key_jwt`) "
            "where it has those instead."
        ),
    )
    jwks: Jwks | None = Field(
        None,
        description="Its public keys (RFC 7517): a mapping, or JSON text such as `${file:PATH}`.",
    )
    jwks_uri: WebUrl | None = Field(None, description="URL of its public keys.")
    redirect_uris: list[Text] = Field([], description="Redirect URIs.")
    tls_client_auth_subject_dn: Text | None = Field(
        None, description="Subject of its certificate, with `tls_client_auth` (RFC 8705)."
    )
    tls_client_auth_san_dns: Text | None = Field(None, description="DNS name in its certificate.")
    tls_client_auth_san_uri: Text | None = Field(None, description="URI in its certificate.")
    tls_client_auth_san_ip: Text | None = Field(None, description="Address in its certificate.")
    tls_client_auth_san_email: Text | None = Field(None, description="Mail in its certificate.")
    tls_client_certificate_bound_access_tokens: Bool = Field(
        False, description="Whether its tokens are bound to its certificate (RFC 8705)."
    )
    dpop_bound_access_tokens: Bool = Field(
        False, description="Whether its tokens must be bound to a key by DPoP (RFC 9449)."
    )
    access_token_format: Literal["opaque", "jwt"] | None = Field(
        None, description="Format of its tokens; default: that of the route, or the provider."
    )
    audiences: list[Text] = Field(
        [], description="Resources that it may get tokens for (RFC 8707); empty for all."
    )
    skip_consent: Bool = Field(
        False, description="Whether users are not asked for their consent to it."
    )
    client_uri: WebUrl | None = Field(None, description="Its web page, for users.")
    logo_uri: WebUrl | None = Field(None, description="Its logo, for users.")
    tos_uri: WebUrl | None = Field(None, description="Its terms of service, for users.")
    policy_uri: WebUrl | None = Field(None, description="Its privacy policy, for users.")
    contacts: list[Text] = Field([], description="Mail addresses of its owners.")
    description: Text | None = Field(None, description="What it is, for operators.")
    rate_limit: RateLimitConfig | None = Field(
        None, description="How many requests it may make to all routes; default: `rate_limit`."
    )
