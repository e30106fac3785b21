"""Tokens: what is this one, and revoke it. A token comes in the body of a form, is never
shown again, and leaves nothing but its digest in the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.admin.actions import AdminActions
from gateway.admin.console.site import Site, Visit
from gateway.admin.problems import ApiError
from gateway.oauth.models import AccessToken
from gateway.oauth.refresh import FamilyState
from gateway.oauth.server import AuthorizationServer

DIGEST_BYTES = 32


class TokenPages:
    """Pages about tokens."""

    def __init__(self, site: Site, server: AuthorizationServer, actions: AdminActions) -> None:
        self._site = site
        self._server = server
        self._actions = actions

    def add_routes(self) -> None:
        """Make the pages known."""
        self._site.add_page("/tokens", self._show)
        self._site.add_form("/tokens", self._inspect)
        self._site.add_form("/tokens/revoke", self._revoke)

    async def _show(self, visit: Visit) -> web.Response:
        return self._page(visit)

    async def _inspect(self, visit: Visit) -> web.Response:
        text = visit.text("token").removeprefix("Bearer ").strip()
        if not text:
            return self._page(visit, error="Paste a token first.", status=400)
        token = await self._server.inspect_token(text)
        if token is not None:
            return self._page(visit, is_lookup=True, found=_access(token))
        state = await self._server.refresh_tokens.inspect(text)
        return self._page(visit, is_lookup=True, found=_refresh(state) if state else None)

    async def _revoke(self, visit: Visit) -> web.Response:
        family, digest = visit.text("family"), None
        if not family:
            try:
                digest = bytes.fromhex(visit.text("digest"))
            except ValueError:
                digest = b""
            if len(digest) != DIGEST_BYTES:
                raise ApiError(400, "digest", "This is no digest of a token.")
        client_id = await self._actions.revoke_kept(visit.actor, digest=digest, family=family)
        return self._page(visit, is_revocation=True, revoked_of=client_id)

    def _page(
        self,
        visit: Visit,
        *,
        found: Found | None = None,
        is_lookup: bool = False,
        is_revocation: bool = False,
        revoked_of: str | None = None,
        error: str = "",
        status: int = 200,
    ) -> web.Response:
        return self._site.render(
            "tokens.html",
            visit,
            status=status,
            token=found,
            is_lookup=is_lookup,
            is_revocation=is_revocation,
            revoked_of=revoked_of,
            error=error,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A live token as the page shows it."""

    kind: str
    client_id: str
    client_name: str
    scope: str
    claims: Mapping[str, Any]
    issued_at: float
    expires_at: float
    digest: str = ""
    family: str = ""
    """The key of its family, of a token that has one; revoking it ends the family."""


def _access(token: AccessToken) -> Found:
    return Found(
        "access token", token.client_id, token.client_name, token.scope, token.claims,
        token.issued_at, token.expires_at, digest=token.digest.hex(),
    )  # fmt: skip


def _refresh(state: FamilyState) -> Found:
    family = state.family
    claims = {"cnf": family.confirmation, "aud": list(family.audience), **family.claims}
    return Found(
        "refresh token", family.client_id, family.client_id, " ".join(family.scopes), claims,
        family.began_at, state.expires_at, family=state.key,
    )  # fmt: skip
