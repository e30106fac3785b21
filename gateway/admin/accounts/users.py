"""The people who may sign in at the console."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from gateway.admin.accounts.sessions import Sessions, owner_of
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.models import Clock, Record, RecordStore

Role = Literal["viewer", "operator"]
ROLES: tuple[Role, ...] = ("viewer", "operator")
"""A viewer looks at everything, an operator changes it, too."""

KIND = "admin-user"
MIN_PASSWORD = 12
"""Characters (OWASP ASVS 2.1.1); there are no rules about kinds of characters."""
MAX_PASSWORD = 256
MAX_USERS = 1000
ATTEMPTS = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class AccountError(Exception):
    """An account can't be as asked for; the text tells why."""


class NoSuchUserError(AccountError):
    """There is no admin user of this name."""


class AdminUser(msgspec.Struct, frozen=True):
    """An admin user, as the store keeps it."""

    name: str
    role: Role
    password_hash: str
    """argon2id, in PHC string format."""
    created_at: float
    """Unix time, seconds."""

    def __repr__(self) -> str:
        return f"<AdminUser {self.name}, {self.role}>"


class AdminUsers:
    """Adds, changes and checks admin users. Every method may raise `StoreUnavailableError`."""

    def __init__(
        self,
        store: RecordStore,
        hasher: SecretHasher,
        sessions: Sessions,
        *,
        wall_clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._sessions = sessions
        self._wall_clock = wall_clock

    async def exist(self) -> bool:
        """Whether there is any admin user: without one, there is no console."""
        return bool(await self._store.list_records(KIND, limit=1))

    async def list(self) -> Sequence[AdminUser]:
        """All of them, by name."""
        records = await self._store.list_records(KIND, limit=MAX_USERS)
        return [_decode(record) for record in records]

    async def get(self, name: str) -> AdminUser | None:
        """The user, or None."""
        record = await self._store.get_record(KIND, name)
        return None if record is None else _decode(record)

    async def add(self, name: str, password: str, role: Role) -> AdminUser:
        """Add a user. Raises `AccountError` and `TemporarilyUnavailableError`."""
        if not _NAME.fullmatch(name):
            raise AccountError(
                "a name is 1 to 64 letters, digits, dots, hyphens, underscores and @, and begins "
                "with a letter or digit"
            )
        user = AdminUser(name, role, await self._hash(password), self._wall_clock())
        if not await self._store.add_record(_encode(user)):
            raise AccountError(f"there is an admin user {name!r} already")
        return user

    async def set_password(self, name: str, password: str) -> AdminUser:
        """Replace a password, and end all sessions of the user. Raises as `add` does."""
        password_hash = await self._hash(password)
        user = await self._change(name, password_hash=password_hash)
        await self._sessions.end_all(name)
        return user

    async def set_role(self, name: str, role: Role) -> AdminUser:
        """Change what a user may do, from the next request on. Raises `NoSuchUserError`."""
        return await self._change(name, role=role)

    async def delete(self, name: str) -> None:
        """Remove a user and all sessions. Raises `NoSuchUserError`."""
        is_gone = await self._store.delete_record(KIND, name)
        await self._sessions.end_all(name)
        if not is_gone:
            raise NoSuchUserError(f"there is no admin user {name!r}")

    async def check(self, name: str, password: str) -> AdminUser | None:
        """The user, if this is the password. Takes as long where there is no such user.

        Raises `TemporarilyUnavailableError`.
        """
        user = await self.get(name) if _NAME.fullmatch(name) else None
        if len(password) > MAX_PASSWORD:
            password, user = "", None
        is_right = await self._hasher.verify(password, user.password_hash if user else None)
        return user if is_right else None

    async def _change(self, name: str, **changes: str) -> AdminUser:
        for _ in range(ATTEMPTS):
            record = await self._store.get_record(KIND, name)
            if record is None:
                break
            user: AdminUser = msgspec.structs.replace(_decode(record), **changes)
            if await self._store.swap_record(record, _encode(user)):
                return user
        raise NoSuchUserError(f"there is no admin user {name!r}")

    async def _hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise AccountError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
        return await self._hasher.hash(password)


def _encode(user: AdminUser) -> Record:
    return Record(KIND, user.name, owner_of(user.name), msgspec.json.encode(user), None)


def _decode(record: Record) -> AdminUser:
    return msgspec.json.decode(record.value, type=AdminUser)
