"""Families of refresh tokens as a code grant would begin them, for clients of the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from support import settings
from support.provider import FORM, Provider, Reply, basic

from gateway.oauth.authentication import AuthenticatedClient
from gateway.oauth.client_metadata import ClientMetadata, metadata_of
from gateway.oauth.issuing import IssuedToken
from gateway.oauth.server import AuthorizationServer

GRANTS = ("client_credentials", "refresh_token")
CONFIDENTIAL = ClientMetadata(grant_types=GRANTS)
PUBLIC = ClientMetadata(grant_types=("refresh_token",), token_endpoint_auth_method="none")


def allow(provider: Provider, **rules: Any) -> None:
    """Let the provider give refresh tokens."""
    rules.setdefault("strategy", "rotating")
    provider.change(grant_types=GRANTS, refresh=settings.refresh(**rules))


async def register(
    provider: Provider, client_id: str = "shop", metadata: ClientMetadata = CONFIDENTIAL
) -> None:
    """Register a client whose secret, if it has one, is `secret`."""
    secret = "secret" if metadata.uses_secret else None
    await provider.server.register_client(
        client_id=client_id, client_secret=secret, metadata=metadata
    )


async def begin(
    server: AuthorizationServer,
    client_id: str = "shop",
    *,
    scopes: Sequence[str] = ("orders:read", "orders:write"),
    username: str | None = "alice",
    **more: Any,
) -> IssuedToken:
    """A first access token and, with it, a first refresh token."""
    client = await server.store.clients.get_client(client_id)
    assert client is not None
    return await server.refresh_tokens.begin(
        AuthenticatedClient(client, metadata_of(client)),
        grant_type="authorization_code",
        scopes=scopes,
        claims={"sub": username or client_id},
        username=username,
        **more,
    )


def refresh_token(issued: IssuedToken) -> str:
    """The refresh token of a response."""
    value: str = issued.members["refresh_token"]
    return value


async def refresh(
    provider: Provider,
    value: str,
    *,
    client_id: str = "shop",
    secret: str | None = "secret",
    headers: Mapping[str, str] | None = None,
    **parameters: str,
) -> Reply:
    """Ask the token endpoint for more."""
    form = {"grant_type": "refresh_token", "refresh_token": value} | parameters
    if secret is None:
        form["client_id"] = client_id
        who: Mapping[str, str] = {}
    else:
        who = basic(client_id, secret)
    return await provider.fetch(
        "POST", "/token", {**FORM, **who, **(headers or {})}, urlencode(form)
    )


async def is_good(provider: Provider, access_token: str) -> bool:
    """Whether an access token passes."""
    reply = await provider.fetch("GET", "/validate", {"Authorization": f"Bearer {access_token}"})
    return reply.status == 200
