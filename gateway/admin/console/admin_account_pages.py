"""Admin users and tokens of the admin API: created, changed, disabled, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from aiohttp import web

from gateway.admin.account_actions import AdminAccountActions
from gateway.admin.accounts import Actor
from gateway.admin.accounts.tokens import ApiToken
from gateway.admin.accounts.users import ROLES, AdminUser, Role
from gateway.admin.console.account_pages import AccountPages, name_of, read_new_password
from gateway.admin.console.lifetimes import LIFETIMES, read_lifetime
from gateway.admin.console.site import Site, Visit
from gateway.oauth.accounts import AccountError

MAY = {
    "viewer": "sees everything, changes nothing",
    "operator": "changes clients, tokens and accounts, too",
}


class AdminUserPages(AccountPages):
    """Pages about admin users."""

    path = "/access/admins"
    new_path = "/access/new-admin"
    new_template = "admin_new.html"
    template = "admin.html"

    def __init__(self, site: Site, actions: AdminAccountActions) -> None:
        super().__init__(site)
        self._actions = actions

    def add_routes(self) -> None:
        """Make the pages known."""
        super().add_routes()
        self._site.add_form(self.path + "/{name}/role", self._set_role)
        self._site.add_form(self.path + "/{name}/password", self._set_password)

    async def find(self, name: str) -> AdminUser | None:
        return await self._actions.accounts.users.get(name)

    async def create(self, visit: Visit) -> web.Response:
        name, role = visit.text("name"), read_role(visit)
        await self._actions.create_user(visit.actor, name, read_new_password(visit), role)
        return self.to(name, "created")

    async def disable(self, actor: Actor, name: str) -> object:
        return await self._actions.disable_user(actor, name)

    async def enable(self, actor: Actor, name: str) -> object:
        return await self._actions.enable_user(actor, name)

    async def delete(self, actor: Actor, name: str) -> None:
        await self._actions.delete_user(actor, name)

    def consequences(self, visit: Visit, account: AdminUser) -> tuple[str, Sequence[str]]:
        own = ["This is you: you will be signed out."] if account.name == visit.actor.name else []
        return "Delete this admin user?", [
            *own,
            "All sessions of this user are over at once.",
            "The audit log keeps what this user did.",
        ]

    def values(self) -> Mapping[str, Any]:
        return {"roles": MAY}

    async def _set_role(self, visit: Visit) -> web.Response:
        async def change() -> None:
            await self._actions.set_role(visit.actor, name_of(visit), read_role(visit))

        return await self.change(visit, change, "changed")

    async def _set_password(self, visit: Visit) -> web.Response:
        async def change() -> None:
            password = read_new_password(visit)
            await self._actions.set_password(visit.actor, name_of(visit), password)

        return await self.change(visit, change, "password")


class AdminTokenPages(AccountPages):
    """Pages about tokens of the admin API."""

    path = "/access/tokens"
    new_path = "/access/new-token"
    new_template = "admin_token_new.html"
    template = "admin_token.html"
    deleted = "revoked"

    def __init__(self, site: Site, actions: AdminAccountActions) -> None:
        super().__init__(site)
        self._actions = actions

    def add_routes(self) -> None:
        """Make the pages known."""
        super().add_routes()
        self._site.add_form(self.path + "/{name}/rotate", self._rotate)

    async def find(self, name: str) -> ApiToken:
        return await self._actions.accounts.tokens.get(name)

    async def create(self, visit: Visit) -> web.Response:
        ttl_s = read_lifetime(visit)
        value, token = await self._actions.create_token(
            visit.actor, visit.text("name"), read_role(visit), ttl_s=ttl_s or None
        )
        return self._shown_once(visit, value, token, "Token created")

    async def disable(self, actor: Actor, name: str) -> object:
        return await self._actions.disable_token(actor, name)

    async def enable(self, actor: Actor, name: str) -> object:
        return await self._actions.enable_token(actor, name)

    async def delete(self, actor: Actor, name: str) -> None:
        await self._actions.revoke_token(actor, name)

    def consequences(self, visit: Visit, account: ApiToken) -> tuple[str, Sequence[str]]:
        return "Revoke this token?", [
            "Requests that show it get 401 at once.",
            "It cannot be recovered; a new one of this name has another value.",
        ]

    def values(self) -> Mapping[str, Any]:
        return {"roles": MAY, "lifetimes": LIFETIMES}

    async def _rotate(self, visit: Visit) -> web.Response:
        try:
            value, token = await self._actions.rotate_token(visit.actor, name_of(visit))
        except AccountError as error:
            return await self.page(visit, error)
        return self._shown_once(visit, value, token, "Token rotated")

    def _shown_once(self, visit: Visit, value: str, token: ApiToken, title: str) -> web.Response:
        return self._site.render(
            "shown_once.html",
            visit,
            title=title,
            what="token",
            label="Token of the admin API",
            value=value,
            name=token.name,
            facts={"Role": token.role},
            expires_at=token.expires_at,
            back=f"{self.path}/{quote(token.name, safe='')}",
            back_to="token",
        )


def read_role(visit: Visit) -> Role:
    """The role that was chosen. Raises `AccountError`."""
    chosen = visit.text("role")
    for role in ROLES:
        if role == chosen:
            return role
    raise AccountError(f"Unknown role {chosen[:100]!r} (known: {', '.join(ROLES)}).", member="role")
