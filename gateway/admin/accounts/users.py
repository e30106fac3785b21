"""The users who may sign in to the console."""

from __future__ import annotations

import re
import time
from typing import Literal

import msgspec
from msgspec.structs import replace

from gateway.oauth.accounts import AccountError, PasswordAccounts, Sessions
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.models import Clock, RecordStore

Role = Literal["viewer", "operator"]
ROLES: tuple[Role, ...] = ("viewer", "operator")
"""A viewer looks at everything, an operator changes it, too."""

KIND = "admin-user"
SESSION = "admin-session"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class AdminUser(msgspec.Struct, frozen=True):
    """An admin user, as the store keeps it."""

    name: str
    role: Role
    password_hash: str
    """argon2id, in PHC string format."""
    created_at: float
    """Unix time, seconds."""
    generation: int = 0
    """Differs after each new password, and from that of an earlier user of the name: sessions that
    began before are over."""

    def __repr__(self) -> str:
        return f"<AdminUser {self.name}, {self.role}>"


class AdminUsers(PasswordAccounts[AdminUser]):
    """Adds, changes and checks admin users. Every method may raise `StoreUnavailableError`."""

    def __init__(
        self,
        store: RecordStore,
        hasher: SecretHasher,
        *,
        idle_s: float,
        session_s: float,
        wall_clock: Clock = time.time,
    ) -> None:
        """A session ends `idle_s` after its last request and `session_s` after its first."""
        super().__init__(
            store,
            hasher,
            kind=KIND,
            model=AdminUser,
            names=_NAME,
            name_of=lambda user: user.name,
            hash_of=lambda user: user.password_hash,
            generation_of=lambda user: user.generation,
            owner_of="admin:{}".format,
        )
        self.sessions = Sessions(
            store, self, kind=SESSION, ttl_s=session_s, idle_s=idle_s, wall_clock=wall_clock
        )
        self._wall_clock = wall_clock

    async def add(self, name: str, password: str, role: Role) -> AdminUser:
        """Add a user. Raises `AccountError` and `TemporarilyUnavailableError`."""
        if not _NAME.fullmatch(name):
            raise AccountError(
                "a name is 1 to 64 letters, digits, dots, hyphens, underscores and @, and begins "
                "with a letter or digit"
            )
        password_hash, now = await self.hash(password), self._wall_clock()
        user = AdminUser(name, role, password_hash, now, generation=int(now * 1_000_000))
        if not await self.insert(user):
            raise AccountError(f"there is an admin user {name!r} already")
        return user

    async def set_password(self, name: str, password: str) -> AdminUser:
        """Replace a password, and end all sessions of the user. Raises as `add` does."""
        password_hash = await self.hash(password)
        user = await self.change(
            name,
            lambda user: replace(user, password_hash=password_hash, generation=user.generation + 1),
        )
        await self.sessions.end_all(name)
        return _found(user, name)

    async def set_role(self, name: str, role: Role) -> AdminUser:
        """Change what a user may do, from the next request on. Raises `AccountError`."""
        return _found(await self.change(name, lambda user: replace(user, role=role)), name)

    async def delete(self, name: str) -> None:
        """Remove a user and all sessions. Raises `AccountError`."""
        user = await self.get(name)
        await self.remove(name)
        await self.sessions.end_all(name)
        _found(user, name)


def _found(user: AdminUser | None, name: str) -> AdminUser:
    if user is None:
        raise AccountError(f"there is no admin user {name!r}")
    return user
