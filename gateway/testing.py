"""A gateway for the tests of an application: a store of its own in memory, and a token factory.

gateway = TemporaryGateway("gateway.yaml")
app = create_app(gateway)  # the application, as with an `EmbeddedGateway`
...
token = await gateway.issue_token("shop", scopes=["orders:read"])
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry

from gateway.app.embedded import ConfigSource, EmbeddedGateway
from gateway.oauth.models import AccessToken, Client, digest_token

__all__ = ["TemporaryGateway"]

DEFAULT_CONFIG: Mapping[str, Any] = MappingProxyType(
    {"provider": {"registration": {"mode": "off"}}}
)
_MEMORY = Path("/dev/shm")  # noqa: S108 # nosec B108
"""A file system in memory, where there is one."""


class TemporaryGateway(EmbeddedGateway):
    """An embedded gateway whose store is empty at each start, and gone after the stop, whatever
    store the configuration names."""

    def __init__(
        self,
        config: ConfigSource = DEFAULT_CONFIG,
        *,
        mount: str = "",
        registry: CollectorRegistry | None = None,
    ) -> None:
        super().__init__(config, mount=mount, registry=registry)

    async def _open(self, stack: AsyncExitStack) -> None:
        memory = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None
        directory = stack.enter_context(tempfile.TemporaryDirectory("-gateway", dir=memory))
        store = f"sqlite:///{directory}/gateway.db"
        self.config = self.config.model_copy(update={"store": store})
        await super()._open(stack)

    async def add_client(
        self, client_id: str, client_secret: str, *, scopes: Iterable[str] = ()
    ) -> None:
        """Register a client that can get tokens at the token endpoint, with the scopes of the
        provider where none are given. Raises `OAuthError`."""
        await self.provider.server.register_client(
            client_id=client_id,
            client_secret=client_secret,
            scopes=tuple(scopes) or None,
        )

    async def issue_token(
        self,
        client_id: str = "test-client",
        *,
        scopes: Iterable[str] = (),
        subject: str = "",
        audience: Iterable[str] = (),
        claims: Mapping[str, Any] | None = None,
        expires_in_s: float = 300.0,
    ) -> str:
        """Return a new access token, for a client that is registered, or is now. Its scopes need
        not be the provider's; with a negative `expires_in_s`, it has expired."""
        store, now = self.provider.store, time.time()
        client = await store.clients.get_client(client_id)
        if client is None:
            client = Client(client_id, client_id, "", (), now, None, int(now * 1_000_000))
            await store.clients.add_client(client)
        said = dict(claims or {})
        if subject:
            said["sub"] = subject
        if names := list(audience):
            said["aud"] = names
        value = secrets.token_urlsafe(32)
        token = AccessToken(
            digest_token(value), client_id, client.client_name, tuple(scopes), now,
            now + expires_in_s, said,
        )  # fmt: skip
        await store.tokens.add_token(token, generation=client.generation)
        return value

    async def revoke_token(self, token: str) -> None:
        """Revoke a token, as any process at the store could. Raises `StoreUnavailableError`."""
        await self.provider.server.revoke_token(token)
