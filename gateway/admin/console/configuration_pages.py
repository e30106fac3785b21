"""The configuration in effect and its reloads, reasons, and who has access."""

from __future__ import annotations

import re
from itertools import groupby

from aiohttp import web

from gateway.admin.actions import require_operator
from gateway.admin.console import reasons
from gateway.admin.console.site import Site, Visit, redirect
from gateway.admin.problems import ApiError
from gateway.admin.status import GatewayStatus
from gateway.oauth.server import AuthorizationServer

USERS = 50
RELOADS = 20


class ConfigurationPages:
    """Pages about what was configured, and for whom."""

    def __init__(
        self,
        site: Site,
        server: AuthorizationServer,
        gateway_status: GatewayStatus,
    ) -> None:
        self._site = site
        self._server = server
        self._gateway_status = gateway_status

    def add_routes(self) -> None:
        """Make the pages known."""
        self._site.add_page("/reasons", self._show_reasons)
        self._site.add_page("/access", self._show_access)
        self._site.add_form("/access/revoke", self._revoke_api_token)
        self._site.add_page("/configuration", self._show_configuration)
        self._site.add_form("/configuration/reload", self._reload)

    async def _show_reasons(self, visit: Visit) -> web.Response:
        return self._site.render("reasons.html", visit, sections=reasons.sections())

    async def _show_configuration(self, visit: Visit) -> web.Response:
        reloads = self._gateway_status.reloads
        settings = reloads.configuration() if reloads else ()
        return self._site.render(
            "configuration.html",
            visit,
            sections=[
                (name, list(entries))
                for name, entries in groupby(
                    settings, lambda one: re.split(r"[.\[]", one[0], maxsplit=1)[0]
                )
            ],
            has_file=reloads is not None,
            reloads=list(reloads.recent())[:RELOADS] if reloads else [],
            is_reloaded="reloaded" in visit.request.query,
        )

    async def _reload(self, visit: Visit) -> web.Response:
        require_operator(visit.actor)
        if self._gateway_status.reloads is None:
            raise ApiError(409, "no_file", "This gateway was not started from a file.")
        reload = await self._gateway_status.reloads.reload("api")
        await self._site.accounts.audit.note(
            visit.actor.name, visit.actor.address, "config.reload", "", reload.result
        )
        return redirect("/configuration?reloaded#reloads")

    async def _show_access(self, visit: Visit) -> web.Response:
        accounts = self._site.accounts
        after = visit.request.query.get("after", "")
        users = await self._server.users.list_users(after=after, limit=USERS + 1)
        return self._site.render(
            "access.html",
            visit,
            admins=await accounts.users.list_users(limit=1000),
            tokens=await accounts.tokens.list(),
            users=users[:USERS],
            more=users[USERS - 1].username if len(users) > USERS else "",
            after=after,
            done=visit.request.query.get("done", ""),
        )

    async def _revoke_api_token(self, visit: Visit) -> web.Response:
        require_operator(visit.actor)
        name = visit.text("name")
        tokens = self._site.accounts.tokens
        if name not in {token.name for token in await tokens.list()}:
            raise ApiError(404, "not_found", "There is no such token any more.")
        await tokens.revoke(name)
        await self._site.accounts.audit.note(
            visit.actor.name, visit.actor.address, "admin.token.revoke", name, ""
        )
        return redirect("/access?done=revoked")
