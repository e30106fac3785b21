"""The configuration in effect and its reloads, and reasons."""

from __future__ import annotations

import re
from itertools import groupby

from aiohttp import web

from gateway.admin.accounts import require_operator
from gateway.admin.console import reasons
from gateway.admin.console.site import Site, Visit, redirect
from gateway.admin.problems import ApiError
from gateway.admin.status import GatewayStatus

RELOADS = 20


class ConfigurationPages:
    """Pages about what was configured."""

    def __init__(self, site: Site, gateway_status: GatewayStatus) -> None:
        self._site = site
        self._gateway_status = gateway_status

    def add_routes(self) -> None:
        """Make the pages known."""
        self._site.add_page("/reasons", self._show_reasons)
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
