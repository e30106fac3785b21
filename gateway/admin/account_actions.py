"""Actions of operators on accounts: admin users, tokens of the admin API, and users of the
provider. Authorized, executed, and audited, as those on clients in `actions.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.admin.accounts import Accounts, Actor, require_operator
from gateway.admin.accounts.audit import AuditLog
from gateway.admin.accounts.tokens import ApiToken
from gateway.admin.accounts.users import AdminUser, Role
from gateway.oauth.users import User, UserDirectory

Done = TypeVar("Done")


class AdminAccountActions:
    """Each raises `RoleError` where the actor may not do it, `AccountError`, and
    `StoreUnavailableError`."""

    def __init__(self, accounts: Accounts, *, keeps_operator: bool = True) -> None:
        """With `keeps_operator`, `LastOperatorError` rejects what would leave no admin user who
        can change anything. The command line, which can always create one, goes without."""
        self.accounts = accounts
        self._keeps_operator = keeps_operator

    async def create_user(self, actor: Actor, name: str, password: str, role: Role) -> AdminUser:
        """Add an admin user."""
        return await self._do(
            actor, "admin.add", name, lambda: self.accounts.users.add(name, password, role), role
        )

    async def set_role(self, actor: Actor, name: str, role: Role) -> AdminUser:
        """Change what an admin user may do."""
        users, keeps = self.accounts.users, self._keeps_operator
        return await self._do(
            actor,
            "admin.role",
            name,
            lambda: users.set_role(name, role, keeps_operator=keeps),
            role,
        )

    async def set_password(self, actor: Actor, name: str, password: str) -> AdminUser:
        """Replace the password of an admin user, ending all sessions."""
        users = self.accounts.users
        return await self._do(
            actor, "admin.password", name, lambda: users.set_password(name, password)
        )

    async def disable_user(self, actor: Actor, name: str) -> AdminUser:
        """Keep an admin user from signing in, ending all sessions."""
        users, keeps = self.accounts.users, self._keeps_operator
        return await self._do(
            actor, "admin.disable", name, lambda: users.disable(name, keeps_operator=keeps)
        )

    async def enable_user(self, actor: Actor, name: str) -> AdminUser:
        """Let an admin user sign in again."""
        return await self._do(actor, "admin.enable", name, lambda: self.accounts.users.enable(name))

    async def delete_user(self, actor: Actor, name: str) -> None:
        """Remove an admin user, ending all sessions."""
        users, keeps = self.accounts.users, self._keeps_operator
        await self._do(
            actor, "admin.delete", name, lambda: users.delete(name, keeps_operator=keeps)
        )

    async def create_token(
        self, actor: Actor, name: str, role: Role, *, ttl_s: float | None
    ) -> tuple[str, ApiToken]:
        """Create a token of the admin API: its value and what it is."""
        tokens = self.accounts.tokens
        return await self._do(
            actor, "admin.token.create", name, lambda: tokens.create(name, role, ttl_s=ttl_s), role
        )

    async def rotate_token(self, actor: Actor, name: str) -> tuple[str, ApiToken]:
        """Give a token another value; the old one is rejected from now on."""
        return await self._do(
            actor, "admin.token.rotate", name, lambda: self.accounts.tokens.rotate(name)
        )

    async def disable_token(self, actor: Actor, name: str) -> ApiToken:
        """Have a token rejected until it is enabled."""
        return await self._do(
            actor, "admin.token.disable", name, lambda: self.accounts.tokens.disable(name)
        )

    async def enable_token(self, actor: Actor, name: str) -> ApiToken:
        """Have a token accepted again."""
        return await self._do(
            actor, "admin.token.enable", name, lambda: self.accounts.tokens.enable(name)
        )

    async def revoke_token(self, actor: Actor, name: str) -> None:
        """Revoke a token."""
        await self._do(actor, "admin.token.revoke", name, lambda: self.accounts.tokens.revoke(name))

    async def _do(
        self,
        actor: Actor,
        action: str,
        name: str,
        work: Callable[[], Awaitable[Done]],
        detail: str = "",
    ) -> Done:
        require_operator(actor)
        done = await work()
        await self.accounts.audit.note(actor.name, actor.address, action, name, detail)
        return done


class UserActions:
    """Each raises `RoleError` where the actor may not do it, `AccountError`, `UserExistsError`,
    `NoSuchAccountError` and `StoreUnavailableError`."""

    def __init__(self, users: UserDirectory, audit: AuditLog) -> None:
        self.users = users
        self._audit = audit

    async def find(self, username: str) -> User:
        """The user of a username. Raises `NoSuchAccountError`."""
        user = await self.users.get(username)
        if user is None:
            raise await self.users.missing("user", username)
        return user

    async def create(self, actor: Actor, username: str, password: str, *, name: str = "") -> User:
        """Add a user, who signs in by a password."""
        return await self._do(
            actor, "user.create", username, lambda: self.users.add(username, password, name=name)
        )

    async def rename(self, actor: Actor, username: str, name: str) -> User:
        """Give a user another display name."""
        return await self._do(
            actor, "user.update", username, lambda: self.users.rename(username, name)
        )

    async def set_password(
        self, actor: Actor, username: str, password: str, *, revoke_tokens: bool = False
    ) -> User:
        """Replace the password of a user, ending all sessions."""
        return await self._do(
            actor,
            "user.password",
            username,
            lambda: self.users.set_password(username, password, revoke_tokens=revoke_tokens),
            "and tokens revoked" if revoke_tokens else "",
        )

    async def disable(self, actor: Actor, username: str) -> int:
        """Keep a user from signing in. Returns how many access tokens were live."""
        return await self._do(actor, "user.disable", username, lambda: self.users.disable(username))

    async def enable(self, actor: Actor, username: str) -> User:
        """Let a user sign in again."""
        return await self._do(actor, "user.enable", username, lambda: self.users.enable(username))

    async def delete(self, actor: Actor, username: str) -> int:
        """Delete a user. Returns how many access tokens were live."""
        return await self._do(actor, "user.delete", username, lambda: self.users.delete(username))

    async def _do(
        self,
        actor: Actor,
        action: str,
        username: str,
        work: Callable[[], Awaitable[Done | None]],
        detail: str = "",
    ) -> Done:
        require_operator(actor)
        done = await work()
        if done is None:
            raise await self.users.missing("user", username)
        if not detail and isinstance(done, int):
            detail = f"{done} live tokens revoked"
        await self._audit.note(actor.name, actor.address, action, username, detail)
        return done
