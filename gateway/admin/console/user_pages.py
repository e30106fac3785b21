"""Users who sign in at the provider: created, renamed, given a new password, disabled, deleted."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from gateway.admin.account_actions import UserActions
from gateway.admin.accounts import Actor
from gateway.admin.console.account_pages import AccountPages, name_of, read_new_password
from gateway.admin.console.site import Site, Visit
from gateway.oauth.users import User


class UserPages(AccountPages):
    """Pages about users."""

    path = "/access/users"
    new_path = "/access/new-user"
    new_template = "user_new.html"
    template = "user.html"

    def __init__(self, site: Site, actions: UserActions) -> None:
        super().__init__(site)
        self._actions = actions

    def add_routes(self) -> None:
        """Make the pages known."""
        super().add_routes()
        self._site.add_form(self.path + "/{name}/rename", self._rename)
        self._site.add_form(self.path + "/{name}/password", self._set_password)

    async def find(self, name: str) -> User | None:
        return await self._actions.users.get(name)

    async def create(self, visit: Visit) -> web.Response:
        username = visit.text("username")
        await self._actions.create(
            visit.actor, username, read_new_password(visit), name=visit.text("name")
        )
        return self.to(username, "created")

    async def disable(self, actor: Actor, name: str) -> object:
        return await self._actions.disable(actor, name)

    async def enable(self, actor: Actor, name: str) -> object:
        return await self._actions.enable(actor, name)

    async def delete(self, actor: Actor, name: str) -> object:
        return await self._actions.delete(actor, name)

    def consequences(self, visit: Visit, account: User) -> tuple[str, Sequence[str]]:
        return "Delete this user?", [
            "All sessions are over, and all tokens that clients have in this user's name are "
            "revoked, at once.",
            "What the user consented to is forgotten.",
            "An account that is only disabled can be enabled again."
            if account.password_hash
            else "At the next sign-in at the OpenID provider, the account is created again; "
            "disable it to prevent that.",
        ]

    async def _rename(self, visit: Visit) -> web.Response:
        name = visit.text("name")
        return await self.change(
            visit, lambda: self._actions.rename(visit.actor, name_of(visit), name), "changed"
        )

    async def _set_password(self, visit: Visit) -> web.Response:
        async def change() -> None:
            await self._actions.set_password(
                visit.actor,
                name_of(visit),
                read_new_password(visit),
                revoke_tokens="revoke_tokens" in visit.form,
            )

        return await self.change(visit, change, "password")
