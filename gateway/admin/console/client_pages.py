"""Clients: found, shown, renewed, rotated, limited, deleted."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from aiohttp import web

from gateway.admin.actions import AdminActions
from gateway.admin.console.account_pages import errors_of
from gateway.admin.console.client_form import facts_of
from gateway.admin.console.client_form_pages import find_client, show_secret
from gateway.admin.console.site import Site, Visit, redirect
from gateway.admin.status import GatewayStatus
from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.errors import InvalidClientMetadataError, OAuthError
from gateway.oauth.models import Client
from gateway.oauth.server import AuthorizationServer
from gateway.rate_limit import RateLimit

PAGE = 50
MAX_QUERY = 100
MAX_COUNT = 100
OVERLAPS = {
    "0": "stops immediately",
    "3600": "works for another hour",
    "86400": "works for another day",
    "604800": "works for another week",
}
"""How long the form lets an old secret work beside a new one, in seconds."""
DONE = {
    "renewed": "The registration was extended.",
    "changed": "The registration was changed. Tokens that were issued stay as they are.",
    "ended": "Only the newest secret works.",
    "limited": "The rate limit is set.",
    "unlimited": "The rate limit of all clients applies again.",
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
        self._site.add_page(one, self._show)
        self._site.add_page(one + "/delete", self._confirm_delete)
        self._site.add_form(one + "/delete", self._delete)
        self._site.add_form(one + "/renew", self._renew)
        self._site.add_form(one + "/rotate", self._rotate)
        self._site.add_form(one + "/end-overlap", self._end_overlap)
        self._site.add_form(one + "/limit", self._limit)
        self._site.add_form(one + "/unlimit", self._unlimit)
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

    async def _rotate(self, visit: Visit) -> web.Response:
        overlap = visit.form.get("overlap", "0")
        if overlap not in OVERLAPS:
            known = ", ".join(OVERLAPS.values())
            text = f"Unknown overlap {overlap[:100]!r} (known: {known})."
            return await self._page(visit, InvalidClientMetadataError(text))
        registered = await self._actions.rotate_secret(
            visit.actor,
            visit.request.match_info["client_id"],
            client_secret=None,
            revoke_tokens="revoke_tokens" in visit.form,
            overlap_s=float(overlap),
        )
        if registered is None:
            raise web.HTTPNotFound
        return show_secret(self._site, self._server, visit, registered, "Secret replaced")

    async def _end_overlap(self, visit: Visit) -> web.Response:
        client_id = visit.request.match_info["client_id"]
        return _to(client_id, await self._actions.end_overlap(visit.actor, client_id), "ended")

    async def _limit(self, visit: Visit) -> web.Response:
        client_id = visit.request.match_info["client_id"]
        try:
            limit = read_limit(visit)
        except InvalidClientMetadataError as error:
            return await self._page(visit, error)
        done = await self._actions.limit_client(visit.actor, client_id, limit)
        return _to(client_id, done, "limited")

    async def _unlimit(self, visit: Visit) -> web.Response:
        client_id = visit.request.match_info["client_id"]
        done = await self._actions.limit_client(visit.actor, client_id, None)
        return _to(client_id, done, "unlimited")

    async def _show(self, visit: Visit) -> web.Response:
        return await self._page(visit)

    async def _page(self, visit: Visit, error: OAuthError | None = None) -> web.Response:
        client = await find_client(self._server, visit)
        usage = await self._server.store.usage.client_usage([client.client_id])
        return self._site.render(
            "client.html",
            visit,
            status=error.status if error else 200,
            errors=errors_of(error),
            form=dict(visit.form),
            client=client,
            metadata=(metadata := metadata_of(client)),
            facts=facts_of(metadata),
            overlaps=OVERLAPS,
            has_overlap=metadata.previous_secret(self._site.wall_clock()) is not None,
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
        client = await find_client(self._server, visit)
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


def _to(client_id: str, client: Client | None, done: str) -> web.Response:
    if client is None:
        raise web.HTTPNotFound
    return redirect(f"/clients/{quote(client_id, safe='')}?done={done}")


def read_limit(visit: Visit) -> RateLimit:
    """The rate limit that a form asks for. Raises `InvalidClientMetadataError`."""
    requests = _read_number(visit, "requests")
    burst = _read_number(visit, "burst") if visit.text("burst") else requests
    return RateLimit(int(requests), _read_number(visit, "per_seconds", is_whole=False), int(burst))


def _read_number(visit: Visit, name: str, *, is_whole: bool = True) -> float:
    text = visit.text(name)
    pattern = r"[1-9][0-9]{0,8}" if is_whole else r"[0-9]{1,9}(\.[0-9]{1,9})?"
    number = float(text) if re.fullmatch(pattern, text, re.ASCII) else 0.0
    if number <= 0:
        kind = "a whole number from 1" if is_whole else "a number above 0"
        raise InvalidClientMetadataError(f"Must be {kind}, not {text[:100]!r}.", member=name)
    return number
