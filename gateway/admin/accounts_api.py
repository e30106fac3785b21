"""The admin API of admin users and of its own tokens."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from gateway.admin.account_actions import AdminAccountActions
from gateway.admin.accounts.users import Role
from gateway.admin.api import Text
from gateway.admin.descriptions import (
    AdminDescription,
    AdminTokenDescription,
    Lifetime,
    describe_admin,
    describe_admin_token,
)
from gateway.admin.operations import Call, operation

ADMINS = "/api/v1/admins"
ADMIN = ADMINS + "/{name}"
TOKENS = "/api/v1/admin-tokens"
TOKEN = TOKENS + "/{name}"
TTL_S = 90 * 86400.0
"""How long a token is valid where that is not said, as of `gateway admin token create`."""
MAX_USERS = 1000


class AdminList(TypedDict):
    """All admin users, by name."""

    admins: list[AdminDescription]


class AdminTokenList(TypedDict):
    """All tokens of the admin API, by name."""

    tokens: list[AdminTokenDescription]


class NewAdminToken(AdminTokenDescription):
    """A token with its value, which is in this response alone."""

    token: str


class DeletedAccount(TypedDict):
    """The name of an account that was deleted."""

    name: str


class NewAdmin(msgspec.Struct):
    """An admin user to add."""

    name: Text
    password: Text
    role: Role = "operator"


class AdminChanges(msgspec.Struct):
    """Changes of an admin user."""

    role: Role


class NewPassword(msgspec.Struct):
    """A new password."""

    password: Text


class NewToken(msgspec.Struct):
    """A token to create; without `expires_in` (seconds), it is valid for 90 days, and with null
    until it is revoked."""

    name: Text
    role: Role = "viewer"
    expires_in: Lifetime | None = TTL_S


class AdminAccountsApi:
    """The operations on admin users, and on tokens of the admin API."""

    def __init__(self, actions: AdminAccountActions) -> None:
        self._actions = actions
        self._users = actions.accounts.users
        self._tokens = actions.accounts.tokens

    @operation("GET", ADMINS)
    async def list_admins(self, call: Call) -> AdminList:
        """List the admin users."""
        users = await self._users.list_users(limit=MAX_USERS)
        return {"admins": [describe_admin(user) for user in users]}

    @operation("POST", ADMINS, status=201, fails=(409,))
    async def create_admin(self, call: Call, body: NewAdmin) -> AdminDescription:
        """Add an admin user."""
        made = await self._actions.create_user(call.actor, body.name, body.password, body.role)
        return describe_admin(made)

    @operation("GET", ADMIN, fails=(404,))
    async def show_admin(self, call: Call, name: str) -> AdminDescription:
        """Show an admin user."""
        return describe_admin(await self._users.find(name))

    @operation("PATCH", ADMIN, fails=(404, 409))
    async def update_admin(self, call: Call, name: str, body: AdminChanges) -> AdminDescription:
        """Change what an admin user may do."""
        return describe_admin(await self._actions.set_role(call.actor, name, body.role))

    @operation("PUT", ADMIN + "/password", fails=(404,))
    async def set_admin_password(
        self, call: Call, name: str, body: NewPassword
    ) -> AdminDescription:
        """Give an admin user a new password, ending all sessions."""
        return describe_admin(await self._actions.set_password(call.actor, name, body.password))

    @operation("POST", ADMIN + "/disable", fails=(404, 409))
    async def disable_admin(self, call: Call, name: str) -> AdminDescription:
        """Keep an admin user from signing in, ending all sessions."""
        return describe_admin(await self._actions.disable_user(call.actor, name))

    @operation("POST", ADMIN + "/enable", fails=(404,))
    async def enable_admin(self, call: Call, name: str) -> AdminDescription:
        """Let an admin user sign in again."""
        return describe_admin(await self._actions.enable_user(call.actor, name))

    @operation("DELETE", ADMIN, fails=(404, 409))
    async def delete_admin(self, call: Call, name: str) -> DeletedAccount:
        """Delete an admin user, ending all sessions."""
        await self._actions.delete_user(call.actor, name)
        return {"name": name}

    @operation("GET", TOKENS)
    async def list_admin_tokens(self, call: Call) -> AdminTokenList:
        """List the tokens of the admin API."""
        return {"tokens": [describe_admin_token(token) for token in await self._tokens.list()]}

    @operation("POST", TOKENS, status=201, fails=(409,))
    async def create_admin_token(self, call: Call, body: NewToken) -> NewAdminToken:
        """Create a token of the admin API, which is in this response alone."""
        value, token = await self._actions.create_token(
            call.actor, body.name, body.role, ttl_s=body.expires_in
        )
        return {**describe_admin_token(token), "token": value}

    @operation("GET", TOKEN, fails=(404,))
    async def show_admin_token(self, call: Call, name: str) -> AdminTokenDescription:
        """Show a token of the admin API."""
        return describe_admin_token(await self._tokens.get(name))

    @operation("POST", TOKEN + "/rotate", fails=(404,))
    async def rotate_admin_token(self, call: Call, name: str) -> NewAdminToken:
        """Give a token another value, which is in this response alone."""
        value, token = await self._actions.rotate_token(call.actor, name)
        return {**describe_admin_token(token), "token": value}

    @operation("POST", TOKEN + "/disable", fails=(404,))
    async def disable_admin_token(self, call: Call, name: str) -> AdminTokenDescription:
        """Have a token rejected until it is enabled."""
        return describe_admin_token(await self._actions.disable_token(call.actor, name))

    @operation("POST", TOKEN + "/enable", fails=(404,))
    async def enable_admin_token(self, call: Call, name: str) -> AdminTokenDescription:
        """Have a token accepted again."""
        return describe_admin_token(await self._actions.enable_token(call.actor, name))

    @operation("DELETE", TOKEN, fails=(404,))
    async def revoke_admin_token(self, call: Call, name: str) -> DeletedAccount:
        """Revoke a token of the admin API."""
        await self._actions.revoke_token(call.actor, name)
        return {"name": name}
