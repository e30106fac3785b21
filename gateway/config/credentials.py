"""Sections of API keys, and of the id and secret of clients on each request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from gateway.config.problems import Path
from gateway.config.scalars import CredentialField, HeaderName, Section
from gateway.units import Duration

Credential = Literal["bearer", "api_key", "client_secret"]
Finding = tuple[Path, str]

# They frame, route or identify a message, or are there for another credential.
_NOT_FOR_CREDENTIALS = frozenset(
    {
        "authorization", "connection", "content-length", "content-type", "cookie", "dpop", "expect",
        "forwarded", "host", "proxy-authorization", "te", "traceparent", "tracestate", "trailer",
        "transfer-encoding", "upgrade", "via", "x-client-id", "x-client-name", "x-request-id",
        "x-token-scopes", "x-token-subject",
    }
)  # fmt: skip


class ApiKeysConfig(Section):
    """API keys of clients, for routes that accept them."""

    header: HeaderName = Field(
        "X-API-Key",
        description=(
            "Header field with the API key, on routes whose `credentials` list `api_key`. It may "
            "also be sent as a bearer token."
        ),
    )
    ttl: Duration = Field(
        0.0, description="Lifetime of a new API key unless it is given one; 0 for no expiry."
    )


class ClientSecretConfig(Section):
    """Says where requests have the id and secret of a client."""

    sent_in: list[Literal["header", "query", "basic"]] = Field(
        ["header"],
        min_length=1,
        description=(
            "Header fields, query parameters, or HTTP Basic. A secret in a query is removed before "
            "the request is forwarded, but other proxies and clients may have logged it."
        ),
    )
    id_name: CredentialField = Field(
        "client_id", description="Name of the field or parameter with the client id."
    )
    secret_name: CredentialField = Field(
        "client_secret", description="Name of the field or parameter with the secret."
    )


def check_api_keys(section: ApiKeysConfig) -> Iterator[Finding]:
    """Check the section of API keys."""
    if section.header.lower() in _NOT_FOR_CREDENTIALS:
        yield ("provider", "api_keys", "header"), "is no field for an API key: it has a meaning"


def check_credentials(
    where: Path,
    *,
    auth: str,
    credentials: list[Credential],
    client_secret: ClientSecretConfig | None,
    forwards: bool,
    needs_bearer: list[str],
) -> Iterator[Finding]:
    """Check what a route accepts; `needs_bearer` are the keys that only bearer tokens obey."""
    place = (*where, "credentials")
    is_default = credentials == ["bearer"]
    if auth == "none" and not is_default:
        yield place, "has no effect with auth none, expected nothing here"
    if len(set(credentials)) != len(credentials):
        yield place, "names a credential twice"
    if client_secret is not None and "client_secret" not in credentials:
        yield (*where, "client_secret"), "has no effect unless credentials list client_secret"
    if forwards and is_default:
        yield (
            (*where, "forward_credentials"),
            "has no effect for bearer tokens: expected forward_token",
        )
    if "bearer" not in credentials:
        for key in needs_bearer:
            yield (*where, key), "has no effect unless credentials list bearer"
    if client_secret is not None:
        for key in ("id_name", "secret_name"):
            if getattr(client_secret, key).lower() in _NOT_FOR_CREDENTIALS:
                yield (*where, "client_secret", key), "is no field for a credential"
        if client_secret.id_name.lower() == client_secret.secret_name.lower():
            yield (*where, "client_secret", "secret_name"), "is the name of the client id, too"
