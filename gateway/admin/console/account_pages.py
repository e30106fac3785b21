"""Accounts: admin users, tokens of the admin API, and users of the provider, on one page and each
on its own: created, changed, disabled, enabled, deleted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from aiohttp import web

from gateway.admin.account_actions import AdminAccountActions, UserActions
from gateway.admin.accounts import Actor, require_operator
from gateway.admin.console.site import Site, Visit, redirect
from gateway.oauth.accounts import AccountError, NoSuchAccountError
from gateway.oauth.errors import InvalidClientMetadataError, OAuthError
from gateway.oauth.users.directory import UserExistsError

USERS = 50
MAX_ADMINS = 1000
Errors = Mapping[str, str]
"""Texts of what is wrong with a form, by field; of all of it by an empty name."""
DONE = {
    "created": "The account is created.",
    "changed": "The change is saved.",
    "password": "The password is changed. All sessions of this account are over.",
    "disabled": "The account is disabled.",
    "enabled": "The account is enabled.",
    "deleted": "The account is deleted.",
    "revoked": "The token is revoked.",
}
REJECTIONS = (AccountError, InvalidClientMetadataError, UserExistsError)
"""Errors that an operator can mend in a form."""


class AccessPage:
    """The page that lists all accounts."""

    def __init__(self, site: Site, admins: AdminAccountActions, users: UserActions) -> None:
        self._site = site
        self._accounts = admins.accounts
        self._users = users.users

    def add_routes(self) -> None:
        """Make the page known."""
        self._site.add_page("/access", self._show)

    async def _show(self, visit: Visit) -> web.Response:
        query = visit.request.query
        after = query.get("after", "")
        users = await self._users.list_users(after=after, limit=USERS + 1)
        return self._site.render(
            "access.html",
            visit,
            admins=await self._accounts.users.list_users(limit=MAX_ADMINS),
            tokens=await self._accounts.tokens.list(),
            users=users[:USERS],
            more=users[USERS - 1].username if len(users) > USERS else "",
            after=after,
            done=DONE.get(query.get("done", ""), ""),
        )


class AccountPages(ABC):
    """The pages of one kind of account."""

    path: ClassVar[str]
    """Where the accounts are."""
    new_path: ClassVar[str]
    new_template: ClassVar[str]
    template: ClassVar[str]
    deleted: ClassVar[str] = "deleted"
    """What the list says after one was deleted; see `DONE`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def add_routes(self) -> None:
        """Make the pages known."""
        one = self.path + "/{name}"
        self._site.add_page(self.new_path, self._show_new)
        self._site.add_form(self.path, self._create)
        self._site.add_page(one, self._show)
        self._site.add_form(one + "/disable", self._disable)
        self._site.add_form(one + "/enable", self._enable)
        self._site.add_page(one + "/delete", self._confirm_delete)
        self._site.add_form(one + "/delete", self._delete)

    @abstractmethod
    async def find(self, name: str) -> Any:
        """The account; None where there is none, or `NoSuchAccountError`."""

    @abstractmethod
    async def create(self, visit: Visit) -> web.Response:
        """Create what the form asks for. Raises what `REJECTIONS` has."""

    @abstractmethod
    async def disable(self, actor: Actor, name: str) -> object:
        """Disable an account. Raises `AccountError`."""

    @abstractmethod
    async def enable(self, actor: Actor, name: str) -> object:
        """Enable an account. Raises `AccountError`."""

    @abstractmethod
    async def delete(self, actor: Actor, name: str) -> object:
        """Delete an account. Raises `AccountError`."""

    @abstractmethod
    def consequences(self, visit: Visit, account: Any) -> tuple[str, Sequence[str]]:
        """The question whether to delete it, and what that breaks."""

    def values(self) -> Mapping[str, Any]:
        """Further values for the templates."""
        return {}

    async def _show_new(self, visit: Visit) -> web.Response:
        return self._new(visit)

    def _new(self, visit: Visit, error: OAuthError | None = None) -> web.Response:
        return self._site.render(
            self.new_template,
            visit,
            status=error.status if error else 200,
            errors=errors_of(error),
            form=dict(visit.form),
            **self.values(),
        )

    async def _create(self, visit: Visit) -> web.Response:
        require_operator(visit.actor)
        try:
            return await self.create(visit)
        except REJECTIONS as error:
            return self._new(visit, error)

    async def _show(self, visit: Visit) -> web.Response:
        return await self.page(visit)

    async def page(self, visit: Visit, error: OAuthError | None = None) -> web.Response:
        """The page of the account that the path names, after an error with what is wrong."""
        return self._site.render(
            self.template,
            visit,
            status=error.status if error else 200,
            errors=errors_of(error),
            form=dict(visit.form),
            account=await self._found(visit),
            done=DONE.get(visit.request.query.get("done", ""), ""),
            **self.values(),
        )

    async def _disable(self, visit: Visit) -> web.Response:
        return await self.change(
            visit, lambda: self.disable(visit.actor, name_of(visit)), "disabled"
        )

    async def _enable(self, visit: Visit) -> web.Response:
        return await self.change(visit, lambda: self.enable(visit.actor, name_of(visit)), "enabled")

    async def change(
        self, visit: Visit, work: Callable[[], Awaitable[object]], done: str
    ) -> web.Response:
        """Change the account that the path names, and say so on its page, or what is wrong."""
        try:
            await work()
        except AccountError as error:
            return await self.page(visit, error)
        return self.to(name_of(visit), done)

    async def _confirm_delete(self, visit: Visit) -> web.Response:
        account = await self._found(visit)
        question, consequences = self.consequences(visit, account)
        return self._site.render(
            "account_delete.html",
            visit,
            here=f"{self.path}/{quote(name_of(visit), safe='')}",
            name=name_of(visit),
            question=question,
            consequences=consequences,
        )

    async def _delete(self, visit: Visit) -> web.Response:
        try:
            await self.delete(visit.actor, name_of(visit))
        except NoSuchAccountError:
            raise web.HTTPNotFound from None
        except AccountError as error:
            return await self.page(visit, error)
        return redirect(f"/access?done={self.deleted}")

    async def _found(self, visit: Visit) -> Any:
        try:
            account = await self.find(name_of(visit))
        except NoSuchAccountError:
            account = None
        if account is None:
            raise web.HTTPNotFound
        return account

    def to(self, name: str, done: str) -> web.Response:
        """Redirect to the page of an account, which says what was done."""
        return redirect(f"{self.path}/{quote(name, safe='')}?done={done}")


def name_of(visit: Visit) -> str:
    """The name of the account that the path names."""
    return visit.request.match_info["name"]


def read_new_password(visit: Visit) -> str:
    """The password that was typed twice. Raises `AccountError`."""
    password = visit.form.get("password", "")
    if visit.form.get("repeated", "") != password:
        raise AccountError("The two passwords differ.", member="repeated")
    return password


def errors_of(error: OAuthError | None) -> Errors:
    """Return what is wrong with a form, by field."""
    return {} if error is None else {error.member: error.description}
