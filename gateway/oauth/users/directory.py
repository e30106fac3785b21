"""The users: those with a password of ours, and those who signed in at an upstream provider."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from gateway.oauth.credentials import SecretHasher
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import Clock, Record, Store, user_owner
from gateway.oauth.users.tokens import UserTokens

USER = "user"
ENDS_WITH_USER = ("session", "consent")
MIN_PASSWORD_CHARS = 8  # NIST SP 800-63B section 5.1.1.2
MAX_PASSWORD_CHARS = 256
MAX_NAME_CHARS = 200
ATTEMPTS = 5
# As for clients: a name travels in headers. The colon sets off users of upstream providers.
_USERNAME = re.compile(r"[!-9;-~]{1,255}")


class UserError(OAuthError):
    """What is said of a user is not acceptable."""


class UserExistsError(OAuthError):
    """The name is taken, by a user or a client."""

    status = 409
    error = "user_already_exists"
    default_description = "There is a user, or a client, of this name already."


@dataclass(frozen=True, slots=True)
class User:
    """A user, as the store keeps it."""

    username: str
    """Also the subject (`sub`) of tokens: no client has such an id, and it is never changed."""
    created_at: float
    """Unix time, seconds."""
    generation: int
    """Differs after each change of the password, and for a namesake made later: sessions of
    another generation are over."""
    password_hash: str = field(default="", repr=False)
    """argon2id in PHC string format; empty for who signs in at the upstream provider."""
    name: str = ""
    """For people to read."""

    @property
    def source(self) -> str:
        """Who knows the password: `store`, or `oidc`."""
        return "store" if self.password_hash else "oidc"


class RefreshEnder(Protocol):
    """What of `RefreshTokens` a deletion needs."""

    async def end_user(self, username: str) -> int:
        """End all refresh tokens of a user."""


class UserDirectory:
    """Adds users, knows them by their password, and lets them go with all that is theirs."""

    def __init__(
        self,
        store: Store,
        hasher: SecretHasher,
        tokens: UserTokens,
        refresh_tokens: RefreshEnder,
        *,
        wall_clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._tokens = tokens
        self._refresh_tokens = refresh_tokens
        self._wall_clock = wall_clock

    async def add(self, username: str, password: str, *, name: str = "") -> User:
        """Raises `UserError`, `UserExistsError`, `TemporarilyUnavailableError` and
        `StoreUnavailableError`."""
        if not _USERNAME.fullmatch(username):
            raise UserError("A username is 1 to 255 visible ASCII characters without a colon.")
        _check_name(name)
        _check_password(password)
        # RFC 9700 section 4.15: a client must not pass for a user by its id.
        if await self._store.get_client(username) is not None:
            raise UserExistsError
        user = self._make(username, await self._hasher.hash(password), name)
        if not await self._store.add_record(_record(user)):
            raise UserExistsError
        return user

    async def welcome(self, username: str, *, name: str = "") -> User:
        """The user that an upstream provider vouches for, made when it comes for the first time.
        Raises `StoreUnavailableError`."""
        shown = name[:MAX_NAME_CHARS] if name.isprintable() else ""
        for _ in range(ATTEMPTS):
            user = await self.get(username)
            if user is not None:
                return user
            user = self._make(username, "", shown)
            if await self._store.add_record(_record(user)):
                return user
        raise UserExistsError

    def _make(self, username: str, password_hash: str, name: str) -> User:
        now = self._wall_clock()
        return User(
            username=username,
            created_at=now,
            # From the clock, so that who is deleted and made anew is somebody else.
            generation=int(now * 1_000_000),
            password_hash=password_hash,
            name=name,
        )

    async def get(self, username: str) -> User | None:
        """The user, or None. Raises `StoreUnavailableError`."""
        record = await self._store.get_record(USER, username)
        return None if record is None else _read(record)

    async def list_users(self, *, after: str = "", limit: int = 100) -> Sequence[User]:
        """Up to `limit` users whose name sorts after `after`, in that order. Raises
        `StoreUnavailableError`."""
        records = await self._store.list_records(USER, after=after, limit=limit)
        return [_read(record) for record in records]

    async def verify(self, username: str, password: str, *, source: str = "") -> User | None:
        """The user with this password, which `source` shows, else None: which of the two was
        wrong is not told, not even by the time it takes. Raises `TemporarilyUnavailableError`
        and `StoreUnavailableError`."""
        user = await self.get(username) if _USERNAME.fullmatch(username) else None
        password_hash = user.password_hash or None if user else None
        is_right = await self._hasher.verify(password, password_hash, source=source)
        return user if is_right else None

    async def set_password(self, username: str, password: str) -> User | None:
        """Give a user a new password, which ends all sessions; None where there is no such user.

        Raises `UserError` also for a user without a password here, `TemporarilyUnavailableError`
        and `StoreUnavailableError`.
        """
        _check_password(password)
        password_hash = await self._hasher.hash(password)
        for _ in range(ATTEMPTS):
            record = await self._store.get_record(USER, username)
            if record is None:
                return None
            user = _read(record)
            if not user.password_hash:
                raise UserError("This user signs in at the upstream provider.")
            changed = replace(user, password_hash=password_hash, generation=user.generation + 1)
            if await self._store.swap_record(record, _record(changed)):
                await self._store.delete_owned_records("session", user_owner(username))
                return changed
        raise UserError("The user is being changed by somebody else.")

    async def delete(self, username: str) -> int | None:
        """Delete a user with all sessions, consents and tokens: returns how many access tokens
        were live; None where there was no such user. Raises `StoreUnavailableError`; it can then
        be called again."""
        # First who issues can no more find the user; what was issued before is found below.
        was_there = await self._store.delete_record(USER, username)
        for kind in ENDS_WITH_USER:
            await self._store.delete_owned_records(kind, user_owner(username))
        await self._refresh_tokens.end_user(username)
        revoked = await self._tokens.revoke_all(username)
        return revoked if was_there or revoked else None


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise UserError(f"A name is at most {MAX_NAME_CHARS} printable characters.")


def _check_password(password: str) -> None:
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise UserError(
            f"A password is {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters long."
        )


def _record(user: User) -> Record:
    return Record(
        USER, user.username, user_owner(user.username), msgspec.json.encode(user), expires_at=None
    )


def _read(record: Record) -> User:
    return msgspec.json.decode(record.value, type=User)
