"""Actions of operators on clients and tokens: authorized, executed, and audited.

The console and the API both end here, so the same holds for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gateway.admin.accounts import Actor, require_operator
from gateway.admin.accounts.audit import AuditLog
from gateway.oauth.api_keys import ApiKey, KeySettings, NewApiKey
from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.models import Client, digest_token
from gateway.oauth.server import AuthorizationServer, RegisteredClient
from gateway.rate_limit import RateLimit

Done = TypeVar("Done")


class AdminActions:
    """Each raises `RoleError` where the actor may not do it, and what `AuthorizationServer`
    raises. None where there is no such client or token."""

    def __init__(self, server: AuthorizationServer, audit: AuditLog) -> None:
        self._server = server
        self._audit = audit

    async def create_client(self, actor: Actor, **registration: Any) -> RegisteredClient:
        """Register a client; see `ClientRegistry.register_client`."""
        require_operator(actor)
        registered = await self._server.register_client(**registration)
        action = "client.replace" if registered.is_replacement else "client.create"
        await self._note(actor, action, registered.client.client_id)
        return registered

    async def update_client(
        self,
        actor: Actor,
        client_id: str,
        *,
        client_name: str | None,
        scopes: Sequence[str] | None,
        metadata: Callable[[ClientMetadata], ClientMetadata],
    ) -> Client | None:
        """Change what a client is registered with."""
        require_operator(actor)
        client = await self._server.update_client(
            client_id, client_name=client_name, scopes=scopes, metadata=metadata
        )
        return await self._noted(client, actor, "client.update", client_id)

    async def renew_client(self, actor: Actor, client_id: str) -> Client | None:
        """Extend a registration."""
        require_operator(actor)
        client = await self._server.renew_client(client_id)
        return await self._noted(client, actor, "client.renew", client_id)

    async def rotate_secret(
        self,
        actor: Actor,
        client_id: str,
        *,
        client_secret: str | None,
        revoke_tokens: bool,
        overlap_s: float = 0.0,
    ) -> RegisteredClient | None:
        """Give a client a new secret."""
        require_operator(actor)
        registered = await self._server.rotate_secret(
            client_id,
            client_secret=client_secret,
            revoke_tokens=revoke_tokens,
            overlap_s=overlap_s,
        )
        details = ["and its tokens revoked"] if revoke_tokens else []
        if overlap_s:
            details.append(f"the old one works for another {overlap_s:g} s")
        detail = ", ".join(details)
        return await self._noted(registered, actor, "client.rotate", client_id, detail)

    async def end_overlap(self, actor: Actor, client_id: str) -> Client | None:
        """End the time in which a client's previous secret works."""
        require_operator(actor)
        client = await self._server.end_overlap(client_id)
        return await self._noted(client, actor, "client.end_overlap", client_id)

    async def limit_client(
        self, actor: Actor, client_id: str, limit: RateLimit | None
    ) -> Client | None:
        """Give a client a rate limit of its own, or take it away."""
        require_operator(actor)
        client = await self._server.limit_client(client_id, limit)
        detail = "as all clients" if limit is None else f"{limit.requests} in {limit.per_s:g} s"
        return await self._noted(client, actor, "client.rate_limit", client_id, detail)

    async def delete_client(self, actor: Actor, client_id: str) -> int | None:
        """Delete a client. Returns how many tokens were live."""
        require_operator(actor)
        revoked = await self._server.delete_client(client_id)
        detail = f"{revoked} live tokens revoked"
        return await self._noted(revoked, actor, "client.delete", client_id, detail)

    async def create_api_key(
        self, actor: Actor, client_id: str, settings: KeySettings
    ) -> NewApiKey | None:
        """Create an API key for a client."""
        require_operator(actor)
        made = await self._server.api_keys.create(client_id, settings)
        detail = "" if made is None else f"key {made.key.key_id}"
        return await self._noted(made, actor, "api_key.create", client_id, detail)

    async def rotate_api_key(
        self, actor: Actor, client_id: str, key_id: str, *, overlap_s: float = 0.0
    ) -> NewApiKey | None:
        """Create an API key like another one, which expires."""
        require_operator(actor)
        made = await self._server.api_keys.rotate(client_id, key_id, overlap_s=overlap_s)
        detail = "" if made is None else f"key {key_id}, by {made.key.key_id}"
        if overlap_s:
            detail += f", the old one works for another {overlap_s:g} s"
        return await self._noted(made, actor, "api_key.rotate", client_id, detail)

    async def revoke_api_key(self, actor: Actor, client_id: str, key_id: str) -> ApiKey | None:
        """Revoke an API key."""
        require_operator(actor)
        key = await self._server.api_keys.revoke(client_id, key_id)
        return await self._noted(key, actor, "api_key.revoke", client_id, f"key {key_id}")

    async def revoke_client_tokens(self, actor: Actor, client_id: str) -> int | None:
        """Revoke all tokens of a client. Returns how many were live."""
        require_operator(actor)
        revoked = await self._server.revoke_client_tokens(client_id)
        detail = f"{revoked} live tokens revoked"
        return await self._noted(revoked, actor, "client.revoke_tokens", client_id, detail)

    async def revoke_token(self, actor: Actor, value: str) -> str | None:
        """Revoke a token, access or refresh. Returns the id of its client."""
        require_operator(actor)
        client_id = await self._server.revoke_token(value)
        return await self._token_noted(actor, client_id, digest_token(value))

    async def revoke_kept(
        self, actor: Actor, *, digest: bytes | None = None, family: str = ""
    ) -> str | None:
        """The same for who has no token at hand, but its digest or the key of its family."""
        require_operator(actor)
        client_id = await self._server.revoke_kept(digest=digest, family=family)
        return await self._token_noted(actor, client_id, digest)

    async def _token_noted(
        self, actor: Actor, client_id: str | None, digest: bytes | None
    ) -> str | None:
        if client_id is not None:
            detail = f"digest {digest.hex()[:12]}" if digest else "a family of refresh tokens"
            await self._note(actor, "token.revoke", client_id, detail)
        return client_id

    async def _noted(
        self, done: Done | None, actor: Actor, action: str, target: str, detail: str = ""
    ) -> Done | None:
        if done is not None:
            await self._note(actor, action, target, detail)
        return done

    async def _note(self, actor: Actor, action: str, target: str, detail: str = "") -> None:
        await self._audit.note(actor.name, actor.address, action, target, detail)
