"""The admin API of the users who sign in at the provider."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from gateway.admin.account_actions import UserActions
from gateway.admin.accounts_api import NewPassword
from gateway.admin.api import PageLimit, Text
from gateway.admin.descriptions import UserDescription, describe_user
from gateway.admin.operations import Call, operation

USERS = "/api/v1/users"
USER = USERS + "/{username}"


class UserPage(TypedDict):
    """Users by username."""

    users: list[UserDescription]
    next: str | None


class RevokedUserTokens(TypedDict):
    """How many live access tokens in the name of a user were revoked."""

    username: str
    tokens_revoked: int


class UsersQuery(msgspec.Struct):
    """Which users."""

    after: str = ""
    limit: PageLimit = 100


class NewUser(msgspec.Struct):
    """A user to add, who signs in by a password."""

    username: Text
    password: Text
    name: str = ""


class UserChanges(msgspec.Struct):
    """Changes of a user."""

    name: str


class NewUserPassword(NewPassword):
    """A new password; with `revoke_tokens`, what clients have in the name of the user ends, too."""

    revoke_tokens: bool = False


class UsersApi:
    """The operations on users."""

    def __init__(self, actions: UserActions) -> None:
        self._actions = actions

    @operation("GET", USERS)
    async def list_users(self, call: Call, query: UsersQuery) -> UserPage:
        """List the users."""
        users = await self._actions.users.list_users(after=query.after, limit=query.limit)
        return {
            "users": [describe_user(user) for user in users],
            "next": users[-1].username if len(users) == query.limit else None,
        }

    @operation("POST", USERS, status=201, fails=(409,))
    async def create_user(self, call: Call, body: NewUser) -> UserDescription:
        """Add a user, who signs in by a password."""
        return describe_user(
            await self._actions.create(call.actor, body.username, body.password, name=body.name)
        )

    @operation("GET", USER, fails=(404,))
    async def show_user(self, call: Call, username: str) -> UserDescription:
        """Show a user."""
        return describe_user(await self._actions.find(username))

    @operation("PATCH", USER, fails=(404,))
    async def update_user(self, call: Call, username: str, body: UserChanges) -> UserDescription:
        """Change the display name of a user."""
        return describe_user(await self._actions.rename(call.actor, username, body.name))

    @operation("PUT", USER + "/password", fails=(404,))
    async def set_user_password(
        self, call: Call, username: str, body: NewUserPassword
    ) -> UserDescription:
        """Give a user a new password, ending all sessions."""
        return describe_user(
            await self._actions.set_password(
                call.actor, username, body.password, revoke_tokens=body.revoke_tokens
            )
        )

    @operation("POST", USER + "/disable", fails=(404,))
    async def disable_user(self, call: Call, username: str) -> RevokedUserTokens:
        """Keep a user from signing in, ending all sessions and revoking all tokens."""
        revoked = await self._actions.disable(call.actor, username)
        return {"username": username, "tokens_revoked": revoked}

    @operation("POST", USER + "/enable", fails=(404,))
    async def enable_user(self, call: Call, username: str) -> UserDescription:
        """Let a user sign in again."""
        return describe_user(await self._actions.enable(call.actor, username))

    @operation("DELETE", USER, fails=(404,))
    async def delete_user(self, call: Call, username: str) -> RevokedUserTokens:
        """Delete a user with all sessions, consents and tokens."""
        revoked = await self._actions.delete(call.actor, username)
        return {"username": username, "tokens_revoked": revoked}
