"""Clients, tokens and accounts in plain values: for the admin API, and for the command line, which
loads no HTTP server for them."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

import msgspec

from gateway.admin.accounts.tokens import ApiToken
from gateway.admin.accounts.users import AdminUser, Role
from gateway.oauth.api_keys import ApiKey
from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.endpoints.introspection import TokenDescription, describe_refresh_token
from gateway.oauth.models import Client
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.users import User
from gateway.rate_limit import RateLimit
from gateway.units import MAX_DURATION_S

Positive = Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]
Lifetime = Annotated[float, msgspec.Meta(gt=0, le=MAX_DURATION_S)]
"""Seconds; as long as a duration of the configuration may be."""


class LimitDescription(TypedDict):
    """A client's own rate limit."""

    requests: Positive
    per_seconds: Annotated[float, msgspec.Meta(gt=0)]
    burst: Positive


class ClientDescription(TypedDict):
    """A client; never its secret, but where that was made just now."""

    client_id: str
    client_name: str
    scope: str
    client_id_issued_at: int
    client_secret_expires_at: int
    expired: bool
    rate_limit: NotRequired[LimitDescription]
    registered_by: NotRequired[str]
    previous_secret_expires_at: NotRequired[int]
    managed_by: NotRequired[str]
    disabled_at: NotRequired[int]
    client_secret: NotRequired[str]


class ApiKeyDescription(TypedDict):
    """An API key; never its value, but where that was made just now."""

    key_id: str
    client_id: str
    name: str
    scope: str | None
    created_at: int
    expires_at: int | None
    expired: bool
    last_used: int | None
    rate_limit: NotRequired[LimitDescription]
    api_key: NotRequired[str]


class AdminDescription(TypedDict):
    """An admin user; `disabled_at` where it is disabled."""

    name: str
    role: Role
    created_at: int
    disabled_at: NotRequired[int]


class AdminTokenDescription(AdminDescription):
    """A token of the admin API, without its value; `expires_at` of 0 is never."""

    expires_at: int


class UserDescription(TypedDict):
    """A user of the provider, who signs in by a password here (`store`), or at an OpenID provider
    (`oidc`); `disabled_at` where it is disabled."""

    username: str
    name: str
    source: str
    created_at: int
    disabled_at: NotRequired[int]


def describe_admin(account: AdminUser | ApiToken) -> AdminDescription:
    """Describe an admin user; never its password."""
    described: AdminDescription = {
        "name": account.name,
        "role": account.role,
        "created_at": int(account.created_at),
    }
    if account.disabled_at is not None:
        described["disabled_at"] = int(account.disabled_at)
    return described


def describe_admin_token(token: ApiToken) -> AdminTokenDescription:
    """Describe a token of the admin API; never its value."""
    return {**describe_admin(token), "expires_at": int(token.expires_at or 0)}


def describe_user(user: User) -> UserDescription:
    """Describe a user; never its password."""
    described: UserDescription = {
        "username": user.username,
        "name": user.name,
        "source": user.source,
        "created_at": int(user.created_at),
    }
    if user.disabled_at is not None:
        described["disabled_at"] = int(user.disabled_at)
    return described


def describe_api_key(key: ApiKey, now: float) -> ApiKeyDescription:
    """Describe an API key; never its value. A scope of null is all that its client has."""
    described: ApiKeyDescription = {
        "key_id": key.key_id,
        "client_id": key.client_id,
        "name": key.name,
        "scope": None if key.scopes is None else " ".join(key.scopes),
        "created_at": int(key.created_at),
        "expires_at": None if key.expires_at is None else int(key.expires_at),
        "expired": key.is_expired(now),
        "last_used": None if key.last_used is None else int(key.last_used),
    }
    if key.rate_limit is not None:
        described["rate_limit"] = describe_limit(key.rate_limit)
    return described


def describe_client(client: Client, now: float) -> ClientDescription:
    """Describe a client with the members of RFC 7591; never its secret."""
    described: ClientDescription = {
        "client_id": client.client_id,
        "client_name": client.client_name,
        "scope": " ".join(client.scopes),
        "client_id_issued_at": int(client.created_at),
        "client_secret_expires_at": int(client.expires_at or 0),
        "expired": client.is_expired(now),
        **metadata_of(client).described(),  # type: ignore[typeddict-item]
    }
    metadata = metadata_of(client)
    if metadata.previous_secret(now) is not None:
        described["previous_secret_expires_at"] = int(metadata.previous_secret_expires_at or 0)
    if metadata.disabled_at is not None:
        described["disabled_at"] = int(metadata.disabled_at)
    if client.rate_limit is not None:
        described["rate_limit"] = describe_limit(client.rate_limit)
    return described


def describe_limit(limit: RateLimit) -> LimitDescription:
    """The members of a limit."""
    return {"requests": limit.requests, "per_seconds": limit.per_s, "burst": limit.burst}


async def inspect_token(server: AuthorizationServer, value: str) -> TokenDescription:
    """An access token or a refresh token in the words of RFC 7662. Raises
    `StoreUnavailableError`."""
    token = await server.inspect_token(value)
    if token is None:
        state = await server.refresh_tokens.inspect(value)
        return {"active": False} if state is None else describe_refresh_token(state)
    return {
        "active": True,
        "client_id": token.client_id,
        "scope": token.scope,
        "iat": int(token.issued_at),
        "exp": int(token.expires_at),
    }
