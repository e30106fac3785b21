"""Clients: registered and changed by a form that has whatever the admin API takes."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from aiohttp import web

from gateway.admin.actions import AdminActions
from gateway.admin.console.account_pages import errors_of
from gateway.admin.console.client_form import (
    checked,
    choices,
    default_metadata,
    read_members,
    shown_values,
)
from gateway.admin.console.site import Site, Visit, redirect
from gateway.oauth.client_metadata import merge_metadata, metadata_of, read_metadata
from gateway.oauth.errors import (
    ClientAlreadyExistsError,
    InvalidClientMetadataError,
    InvalidRedirectUriError,
    ManagedClientError,
    OAuthError,
)
from gateway.oauth.models import Client
from gateway.oauth.server import AuthorizationServer, RegisteredClient

REJECTIONS = (
    ClientAlreadyExistsError, InvalidClientMetadataError, InvalidRedirectUriError,
    ManagedClientError,
)  # fmt: skip
"""Errors that an operator can mend in the form."""


class ClientFormPages:
    """Pages that create and edit clients."""

    def __init__(self, site: Site, server: AuthorizationServer, actions: AdminActions) -> None:
        self._site = site
        self._server = server
        self._actions = actions

    def add_routes(self) -> None:
        """Make the pages known."""
        self._site.add_page("/new-client", self._show_new)
        self._site.add_form("/clients", self._create)
        self._site.add_page("/clients/{client_id}/edit", self._show_edit)
        self._site.add_form("/clients/{client_id}/edit", self._edit)

    async def _show_new(self, visit: Visit) -> web.Response:
        return self._new(visit)

    def _new(self, visit: Visit, error: OAuthError | None = None) -> web.Response:
        policy = self._server.policy
        metadata = default_metadata(policy)
        return self._site.render(
            "client_new.html",
            visit,
            status=error.status if error else 200,
            errors=errors_of(error),
            values=shown_values(metadata, visit.form),
            scopes=policy.scopes,
            chosen=checked(visit.form, "scope") if visit.form else policy.scopes,
            offers_replacement=isinstance(error, ClientAlreadyExistsError),
            **choices(policy, metadata),
        )

    async def _create(self, visit: Visit) -> web.Response:
        secret = visit.form.get("client_secret") or None
        try:
            registered = await self._actions.create_client(
                visit.actor,
                client_id=visit.text("client_id") or None,
                client_secret=secret,
                client_name=visit.text("client_name") or None,
                scopes=checked(visit.form, "scope"),
                metadata=read_metadata(read_members(visit.form)),
                replace_existing="replace" in visit.form,
            )
        except REJECTIONS as error:
            return self._new(visit, error)
        # What the operator chose is known already: it need not be on a screen.
        return show_secret(
            self._site, self._server, visit, registered, "Client created", is_chosen=bool(secret)
        )

    async def _show_edit(self, visit: Visit) -> web.Response:
        return self._edit_page(visit, await find_client(self._server, visit))

    def _edit_page(
        self, visit: Visit, client: Client, error: OAuthError | None = None
    ) -> web.Response:
        metadata, policy = metadata_of(client), self._server.policy
        values = shown_values(metadata, visit.form)
        values.setdefault("client_name", client.client_name)
        scopes: Sequence[str] = list(dict.fromkeys((*policy.scopes, *client.scopes)))
        return self._site.render(
            "client_edit.html",
            visit,
            status=error.status if error else 200,
            errors=errors_of(error),
            client=client,
            values=values,
            scopes=scopes,
            chosen=checked(visit.form, "scope") if visit.form else client.scopes,
            **choices(policy, metadata),
        )

    async def _edit(self, visit: Visit) -> web.Response:
        client = await find_client(self._server, visit)
        try:
            members = read_members(visit.form)
            changed = await self._actions.update_client(
                visit.actor,
                client.client_id,
                client_name=visit.text("client_name") or None,
                scopes=checked(visit.form, "scope"),
                metadata=lambda metadata: merge_metadata(metadata, members),
            )
        except REJECTIONS as error:
            return self._edit_page(visit, client, error)
        if changed is None:
            raise web.HTTPNotFound
        return redirect(f"/clients/{quote(client.client_id, safe='')}?done=changed")


async def find_client(server: AuthorizationServer, visit: Visit) -> Client:
    """The client that the path names. Raises `web.HTTPNotFound`."""
    client = await server.store.clients.get_client(visit.request.match_info["client_id"])
    if client is None:
        raise web.HTTPNotFound
    return client


def show_secret(
    site: Site,
    server: AuthorizationServer,
    visit: Visit,
    registered: RegisteredClient,
    title: str,
    *,
    is_chosen: bool = False,
) -> web.Response:
    """The page that shows a secret once, unless the operator has chosen it."""
    policy, metadata = server.policy, metadata_of(registered.client)
    return site.render(
        "client_secret.html",
        visit,
        client=registered.client,
        secret="" if is_chosen else registered.client_secret,
        grants=metadata.grant_types,
        token_endpoint=policy.issuer + policy.token_path,
        authorization_endpoint=policy.issuer + policy.authorize_path,
        title=title,
    )
