"""The users who may sign in to the console."""

from __future__ import annotations

import re
import time
from typing import Literal

import msgspec
from msgspec.structs import replace

from gateway.oauth.accounts import (
    AccountError,
    AccountExistsError,
    PasswordAccounts,
    Sessions,
)
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.models import Clock, RecordStore

Role = Literal["viewer", "operator"]
ROLES: tuple[Role, ...] = ("viewer", "operator")
"""A viewer looks at everything, an operator changes it, too."""

KIND = "admin-user"
KIND_IN_WORDS = "admin user"
SESSION = "admin-session"
MAX_SHOWN = 100
"""How much of a wrong name an error shows."""
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
    """Differs after each new password, when it is enabled, and from that of an earlier user of the
    name: sessions that began before are over."""
    disabled_at: float | None = None
    """Unix time, seconds, since when the user can't sign in; None where it can."""

    @property
    def may_change(self) -> bool:
        """Whether this user can change anything: it is an operator who can sign in."""
        return self.role == "operator" and self.disabled_at is None

    def __repr__(self) -> str:
        return f"<AdminUser {self.name}, {self.role}>"


class LastOperatorError(AccountError):
    """The change would leave no admin user who can change anything."""

    status = 409
    error = "last_operator"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is the last operator who can sign in. Create or enable another operator "
            "first: without one, changes could only be made by an API token or `gateway admin`."
        )


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
                "A name is 1 to 64 letters, digits, dots, hyphens, underscores and @, and begins "
                f"with a letter or digit, unlike {name[:MAX_SHOWN]!r}.",
                member="name",
            )
        password_hash, now = await self.hash(password), self._wall_clock()
        user = AdminUser(name, role, password_hash, now, generation=int(now * 1_000_000))
        if not await self.insert(user):
            raise AccountExistsError(f"There is an admin user {name!r} already.", member="name")
        return user

    async def set_password(self, name: str, password: str) -> AdminUser:
        """Replace a password, and end all sessions of the user. Raises as `add` does."""
        password_hash = await self.hash(password)
        user = await self.change(
            name,
            lambda user: replace(user, password_hash=password_hash, generation=user.generation + 1),
        )
        await self.sessions.end_all(name)
        return await self._found(user, name)

    async def set_role(self, name: str, role: Role, *, keeps_operator: bool = False) -> AdminUser:
        """Change what a user may do, from the next request on. Raises `AccountError`; with
        `keeps_operator`, also `LastOperatorError`."""
        return await self._restrict(name, keeps_operator=keeps_operator, role=role)

    async def disable(self, name: str, *, keeps_operator: bool = False) -> AdminUser:
        """Keep a user from signing in, and end all sessions. Raises as `set_role` does."""
        user = await self._restrict(
            name, keeps_operator=keeps_operator, disabled_at=self._wall_clock()
        )
        await self.sessions.end_all(name)
        return user

    async def enable(self, name: str) -> AdminUser:
        """Let a user sign in again. Raises `AccountError`."""
        user = await self.change(name, _enabled)
        return await self._found(user, name)

    async def delete(self, name: str, *, keeps_operator: bool = False) -> None:
        """Remove a user and all sessions. Raises as `set_role` does."""
        if keeps_operator:
            await self.disable(name, keeps_operator=True)
        was_there = await self.remove(name)
        await self.sessions.end_all(name)
        if not was_there:
            raise await self.missing(KIND_IN_WORDS, name)

    async def find(self, name: str) -> AdminUser:
        """The user of a name. Raises `NoSuchAccountError`."""
        return await self._found(await self.get(name), name)

    async def _found(self, user: AdminUser | None, name: str) -> AdminUser:
        if user is None:
            raise await self.missing(KIND_IN_WORDS, name)
        return user

    async def _restrict(self, name: str, *, keeps_operator: bool, **changes: object) -> AdminUser:
        """Change a user who may be able to do less thereafter."""
        before = await self.find(name)
        is_guarded = keeps_operator and before.may_change
        if is_guarded and not replace(before, **changes).may_change:
            await self._require_other_operator(name)
        changed = await self.change(name, lambda user: replace(user, **changes))
        if is_guarded and changed is not None and not changed.may_change:
            try:
                # Again: of two who restrict each other at once, one at least finds no other.
                await self._require_other_operator(name)
            except LastOperatorError:
                old = {key: getattr(before, key) for key in changes}
                await self.change(name, lambda user: replace(user, **old))
                raise
        return await self._found(changed, name)

    async def _require_other_operator(self, name: str) -> None:
        after = ""
        while page := await self.list_users(after=after):
            if any(user.may_change and user.name != name for user in page):
                return
            after = page[-1].name
        raise LastOperatorError(name)


def _enabled(user: AdminUser) -> AdminUser:
    if user.disabled_at is None:
        return user
    # Another generation: a session of a sign-in that was on its way at that time is over.
    return replace(user, disabled_at=None, generation=user.generation + 1)
