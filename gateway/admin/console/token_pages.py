"""Tokens: what is this one, and revoke it. A token comes in the body of a form, is never
shown again, and leaves nothing but its digest in the page."""

from __future__ import annotations

from aiohttp import web

from gateway.admin.actions import AdminActions
from gateway.admin.console.site import Site, Visit
from gateway.admin.problems import ProblemError
from gateway.oauth.models import AccessToken
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
        return self._page(visit, token=token, is_asked=True)

    async def _revoke(self, visit: Visit) -> web.Response:
        try:
            digest = bytes.fromhex(visit.text("digest"))
        except ValueError:
            digest = b""
        if len(digest) != DIGEST_BYTES:
            raise ProblemError(400, "digest", "This is no digest of a token.")
        token = await self._actions.revoke_token(visit.actor, digest)
        return self._page(visit, revoked=token, is_revocation=True)

    def _page(
        self,
        visit: Visit,
        *,
        token: AccessToken | None = None,
        revoked: AccessToken | None = None,
        is_asked: bool = False,
        is_revocation: bool = False,
        error: str = "",
        status: int = 200,
    ) -> web.Response:
        return self._site.render(
            "tokens.html",
            visit,
            status=status,
            token=token,
            digest=token.digest.hex() if token else "",
            revoked=revoked,
            is_asked=is_asked,
            is_revocation=is_revocation,
            error=error,
            now=self._site.wall_clock(),
        )
