"""Clients: found, shown, created, renewed, rotated, deleted."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from aiohttp import web

from gateway.admin.actions import AdminActions
from gateway.admin.console.site import Site, Visit, redirect
from gateway.admin.status import GatewayStatus
from gateway.oauth.client_metadata import (
    ClientMetadata,
    merge_metadata,
    metadata_of,
    read_metadata,
)
from gateway.oauth.errors import (
    ClientAlreadyExistsError,
    InvalidClientMetadataError,
    InvalidRedirectUriError,
    OAuthError,
)
from gateway.oauth.models import Client
from gateway.oauth.server import AuthorizationServer, RegisteredClient

PAGE = 50
MAX_QUERY = 100
MAX_COUNT = 100
DEFAULT_GRANTS = ("client_credentials",)
DONE = {
    "renewed": "The registration was extended.",
    "changed": "The registration was changed. Tokens that were issued stay as they are.",
    "revoked": "All tokens of this client are revoked.",
    "key_revoked": "The API key is revoked.",
    "deleted": "The client is deleted, and its tokens are revoked.",
}


class ClientPages:
    """Pages about clients."""

    def __init__(
        self,
        site: Site,
        server: AuthorizationServer,
        actions: AdminActions,
        gateway_status: GatewayStatus,
    ) -> None:
        self._site = site
        self._server = server
        self._actions = actions
        self._gateway_status = gateway_status

    def add_routes(self) -> None:
        """Make the pages known."""
        one = "/clients/{client_id}"
        self._site.add_page("/clients", self._list)
        self._site.add_form("/clients", self._create)
        self._site.add_page("/new-client", self._show_new)
        self._site.add_page(one, self._show)
        self._site.add_page(one + "/edit", self._show_edit)
        self._site.add_form(one + "/edit", self._edit)
        self._site.add_page(one + "/delete", self._confirm_delete)
        self._site.add_form(one + "/delete", self._delete)
        self._site.add_form(one + "/renew", self._renew)
        self._site.add_form(one + "/rotate", self._rotate)
        self._site.add_form(one + "/revoke-tokens", self._revoke_tokens)

    async def _list(self, visit: Visit) -> web.Response:
        query = visit.request.query
        text, after = query.get("q", "").strip()[:MAX_QUERY], query.get("after", "")
        found = await self._server.search_clients(text, after=after, limit=PAGE + 1)
        page = found[:PAGE]
        usage = await self._server.store.usage.client_usage([client.client_id for client in page])
        more = ""
        if len(found) > PAGE:
            more = "?" + urlencode({"q": text, "after": page[-1].client_id})
        return self._site.render(
            "clients.html",
            visit,
            clients=page,
            usage=usage,
            now=self._site.wall_clock(),
            text=text,
            after=after,
            more=more,
            done=DONE.get(query.get("done", ""), ""),
        )

    async def _show_new(self, visit: Visit) -> web.Response:
        return self._new(visit)

    def _new(self, visit: Visit, error: str = "", status: int = 200) -> web.Response:
        return self._site.render(
            "client_new.html",
            visit,
            status=status,
            error=error,
            form=dict(visit.form),
            chosen=self._chosen_scopes(visit) if visit.form else self._server.policy.scopes,
            scopes=self._server.policy.scopes,
            grants=self._server.policy.grant_types,
            chosen_grants=self._chosen_grants(visit) if visit.form else DEFAULT_GRANTS,
        )

    def _chosen_grants(self, visit: Visit) -> list[str]:
        return [name for name in self._server.policy.grant_types if f"grant:{name}" in visit.form]

    def _requested_metadata(self, visit: Visit) -> ClientMetadata:
        """Return the metadata that the form asks for. Raises `InvalidClientMetadataError`."""
        members: dict[str, object] = {}
        if grants := self._chosen_grants(visit):
            members["grant_types"] = grants
        if uris := visit.form.get("redirect_uris", "").split():
            members["redirect_uris"] = uris
        if "is_public" in visit.form:
            members["token_endpoint_auth_method"] = "none"
        return read_metadata(members)

    def _chosen_scopes(self, visit: Visit) -> list[str]:
        return [name for name in self._server.policy.scopes if f"scope:{name}" in visit.form]

    async def _create(self, visit: Visit) -> web.Response:
        try:
            registered = await self._actions.create_client(
                visit.actor,
                client_id=visit.text("client_id") or None,
                client_name=visit.text("client_name") or None,
                scopes=self._chosen_scopes(visit),
                metadata=self._requested_metadata(visit),
            )
        except (
            ClientAlreadyExistsError,
            InvalidClientMetadataError,
            InvalidRedirectUriError,
        ) as error:
            return self._new(visit, _text(error), error.status)
        return self._secret(visit, registered, "Client created")

    async def _show_edit(self, visit: Visit) -> web.Response:
        return self._edit_page(visit, await self._find(visit))

    def _edit_page(
        self, visit: Visit, client: Client, error: str = "", status: int = 200
    ) -> web.Response:
        metadata, form = metadata_of(client), visit.form
        known = self._server.policy
        return self._site.render(
            "client_edit.html",
            visit,
            status=status,
            error=error,
            client=client,
            client_name=form.get("client_name", client.client_name),
            redirect_uris=form.get("redirect_uris", "\n".join(metadata.redirect_uris)),
            scopes=list(dict.fromkeys((*known.scopes, *client.scopes))),
            chosen=self._chosen_scopes(visit) if form else client.scopes,
            grants=list(dict.fromkeys((*known.grant_types, *metadata.grant_types))),
            chosen_grants=self._chosen_grants(visit) if form else metadata.grant_types,
        )

    async def _edit(self, visit: Visit) -> web.Response:
        client = await self._find(visit)
        changes = {
            "grant_types": self._chosen_grants(visit) or list(DEFAULT_GRANTS),
            "redirect_uris": visit.form.get("redirect_uris", "").split() or None,
        }
        try:
            changed = await self._actions.update_client(
                visit.actor,
                client.client_id,
                client_name=visit.text("client_name") or None,
                scopes=self._chosen_scopes(visit),
                metadata=lambda metadata: merge_metadata(metadata, changes),
            )
        except (InvalidClientMetadataError, InvalidRedirectUriError) as error:
            return self._edit_page(visit, client, _text(error), error.status)
        if changed is None:
            raise web.HTTPNotFound
        return redirect(f"/clients/{quote(client.client_id, safe='')}?done=changed")

    async def _rotate(self, visit: Visit) -> web.Response:
        registered = await self._actions.rotate_secret(
            visit.actor,
            visit.request.match_info["client_id"],
            client_secret=None,
            revoke_tokens="revoke_tokens" in visit.form,
        )
        if registered is None:
            raise web.HTTPNotFound
        return self._secret(visit, registered, "Secret replaced")

    def _secret(self, visit: Visit, registered: RegisteredClient, title: str) -> web.Response:
        return self._site.render(
            "client_secret.html",
            visit,
            client=registered.client,
            secret=registered.client_secret,
            token_endpoint=self._server.policy.issuer + self._server.policy.token_path,
            title=title,
        )

    async def _show(self, visit: Visit) -> web.Response:
        client = await self._find(visit)
        usage = await self._server.store.usage.client_usage([client.client_id])
        return self._site.render(
            "client.html",
            visit,
            client=client,
            metadata=metadata_of(client),
            usage=usage.get(client.client_id),
            live_tokens=await self._server.store.usage.count_tokens(client.client_id),
            families=await self._count_families(client.client_id),
            routes=self._gateway_status.routes_for_client(client.client_id),
            keys=await self._server.api_keys.list(client.client_id),
            now=self._site.wall_clock(),
            is_expired=client.is_expired(self._site.wall_clock()),
            done=DONE.get(visit.request.query.get("done", ""), ""),
        )

    async def _confirm_delete(self, visit: Visit) -> web.Response:
        client = await self._find(visit)
        usage = await self._server.store.usage.client_usage([client.client_id])
        return self._site.render(
            "client_delete.html",
            visit,
            client=client,
            usage=usage.get(client.client_id),
            live_tokens=await self._server.store.usage.count_tokens(client.client_id),
            families=await self._count_families(client.client_id),
            keys=await self._server.api_keys.list(client.client_id),
            routes=self._gateway_status.routes_for_client(client.client_id),
        )

    async def _delete(self, visit: Visit) -> web.Response:
        client_id = visit.request.match_info["client_id"]
        if await self._actions.delete_client(visit.actor, client_id) is None:
            raise web.HTTPNotFound
        return redirect("/clients?done=deleted")

    async def _renew(self, visit: Visit) -> web.Response:
        client_id = visit.request.match_info["client_id"]
        if await self._actions.renew_client(visit.actor, client_id) is None:
            raise web.HTTPNotFound
        return redirect(f"/clients/{quote(client_id, safe='')}?done=renewed")

    async def _revoke_tokens(self, visit: Visit) -> web.Response:
        client_id = visit.request.match_info["client_id"]
        if await self._actions.revoke_client_tokens(visit.actor, client_id) is None:
            raise web.HTTPNotFound
        return redirect(f"/clients/{quote(client_id, safe='')}?done=revoked")

    async def _count_families(self, client_id: str) -> str:
        """How many grants the client can refresh; many are not counted to the end."""
        found = await self._server.refresh_tokens.list_families(client_id, limit=MAX_COUNT + 1)
        return f"more than {MAX_COUNT}" if len(found) > MAX_COUNT else str(len(found))

    async def _find(self, visit: Visit) -> Client:
        client = await self._server.store.clients.get_client(visit.request.match_info["client_id"])
        if client is None:
            raise web.HTTPNotFound
        return client


def _text(error: OAuthError) -> str:
    return error.description
