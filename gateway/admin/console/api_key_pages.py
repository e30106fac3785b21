"""API keys of a client: listed on its page, created and shown once, rotated, revoked."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from gateway.admin.actions import AdminActions
from gateway.admin.console.account_pages import errors_of
from gateway.admin.console.client_form_pages import find_client
from gateway.admin.console.lifetimes import DAY_S, LIFETIMES, read_lifetime
from gateway.admin.console.site import Site, Visit, redirect
from gateway.oauth.api_keys import KeySettings, NewApiKey
from gateway.oauth.errors import InvalidClientMetadataError, InvalidScopeError, OAuthError
from gateway.oauth.models import Client
from gateway.oauth.server import AuthorizationServer

OVERLAP_S = DAY_S


class ApiKeyPages:
    """Pages about API keys."""

    def __init__(self, site: Site, server: AuthorizationServer, actions: AdminActions) -> None:
        self._site = site
        self._server = server
        self._actions = actions

    def add_routes(self) -> None:
        """Make the pages known."""
        keys = "/clients/{client_id}/api-keys"
        self._site.add_page(keys + "/new", self._show_new)
        self._site.add_form(keys, self._create)
        self._site.add_form(keys + "/{key_id}/rotate", self._rotate)
        self._site.add_form(keys + "/{key_id}/revoke", self._revoke)

    async def _show_new(self, visit: Visit) -> web.Response:
        return self._new(visit, await find_client(self._server, visit))

    def _new(self, visit: Visit, client: Client, error: OAuthError | None = None) -> web.Response:
        chosen = self._chosen_scopes(visit, client) if visit.form else client.scopes
        return self._site.render(
            "api_key_new.html",
            visit,
            status=error.status if error else 200,
            errors=errors_of(error),
            client=client,
            name=visit.form.get("name", ""),
            chosen=chosen,
            lifetimes=LIFETIMES,
            lifetime=visit.form.get("lifetime", "90"),
        )

    @staticmethod
    def _chosen_scopes(visit: Visit, client: Client) -> tuple[str, ...]:
        return tuple(name for name in client.scopes if f"scope:{name}" in visit.form)

    async def _create(self, visit: Visit) -> web.Response:
        client = await find_client(self._server, visit)
        try:
            settings = KeySettings(
                name=visit.text("name"),
                scopes=self._chosen_scopes(visit, client) if client.scopes else None,
                ttl_s=read_lifetime(visit),
            )
            made = await self._actions.create_api_key(visit.actor, client.client_id, settings)
        except (InvalidClientMetadataError, InvalidScopeError) as error:
            return self._new(visit, client, error)
        return self._shown_once(visit, client, made, "API key created")

    async def _rotate(self, visit: Visit) -> web.Response:
        client = await find_client(self._server, visit)
        key_id = visit.request.match_info["key_id"]
        try:
            made = await self._actions.rotate_api_key(
                visit.actor, client.client_id, key_id, overlap_s=OVERLAP_S
            )
        except InvalidClientMetadataError as error:
            return self._new(visit, client, error)
        return self._shown_once(visit, client, made, "API key rotated")

    def _shown_once(
        self, visit: Visit, client: Client, made: NewApiKey | None, title: str
    ) -> web.Response:
        if made is None:
            raise web.HTTPNotFound
        return self._site.render(
            "shown_once.html",
            visit,
            title=title,
            what="key",
            label="API key",
            value=made.value,
            name=made.key.name,
            facts={"Key id": made.key.key_id},
            expires_at=made.key.expires_at,
            back=f"/clients/{quote(client.client_id, safe='')}",
            back_to="client",
        )

    async def _revoke(self, visit: Visit) -> web.Response:
        client_id = visit.request.match_info["client_id"]
        key_id = visit.request.match_info["key_id"]
        if await self._actions.revoke_api_key(visit.actor, client_id, key_id) is None:
            raise web.HTTPNotFound
        return redirect(f"/clients/{quote(client_id, safe='')}?done=key_revoked")
