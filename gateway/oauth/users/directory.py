"""The users: those with a password of ours, and those who signed in at an upstream provider."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from gateway.oauth.accounts import ATTEMPTS, AccountError, PasswordAccounts, Session, Sessions
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import Clock, Store, user_owner
from gateway.oauth.users.tokens import UserTokens

USER = "user"
SESSION = "session"
ENDS_WITH_USER = (SESSION, "consent")
MAX_NAME_CHARS = 200
# As for clients: a name travels in headers. The colon sets off users of upstream providers.
_USERNAME = re.compile(r"[!-9;-~]{1,255}")


class UserExistsError(OAuthError):
    """The name is taken, by a user or a client."""

    status = 409
    error = "user_already_exists"
    default_member = "username"

    def __init__(self, username: str) -> None:
        super().__init__(f"There is a user, or a client, of the name {username!r} already.")


class UserDisabledError(OAuthError):
    """An operator disabled the user, who can't sign in."""

    status = 403
    error = "access_denied"
    default_description = "This account is disabled."


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
    """Display name."""
    disabled_at: float | None = None
    """Unix time, seconds, since when the user can't sign in; None where it can."""

    @property
    def source(self) -> str:
        """The authority that verifies the password: `store`, or `oidc`."""
        return "store" if self.password_hash else "oidc"


UserSession = Session[User]
UserSessions = Sessions[User]


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise AccountError(
            f"A name is at most {MAX_NAME_CHARS} printable characters, unlike "
            f"{name[:MAX_NAME_CHARS]!r}.",
            member="name",
        )


class UserDirectory(PasswordAccounts[User]):
    """Adds users, knows them by their password, and lets them go with all that is theirs."""

    def __init__(
        self,
        store: Store,
        hasher: SecretHasher,
        tokens: UserTokens,
        end_refresh_tokens: Callable[[str], Awaitable[int]],
        *,
        wall_clock: Clock = time.time,
    ) -> None:
        super().__init__(
            store.records,
            hasher,
            kind=USER,
            model=User,
            names=_USERNAME,
            name_of=lambda user: user.username,
            hash_of=lambda user: user.password_hash,
            generation_of=lambda user: user.generation,
            owner_of=user_owner,
        )
        self._store = store
        self._tokens = tokens
        self._end_refresh_tokens = end_refresh_tokens
        self._wall_clock = wall_clock

    def sessions(self, *, ttl_s: float, wall_clock: Clock = time.time) -> UserSessions:
        """The sessions of users, each `ttl_s` long whatever is done in it."""
        return Sessions(self._store.records, self, kind=SESSION, ttl_s=ttl_s, wall_clock=wall_clock)

    async def add(self, username: str, password: str, *, name: str = "") -> User:
        """Raises `AccountError`, `UserExistsError`, `TemporarilyUnavailableError` and
        `StoreUnavailableError`."""
        if not _USERNAME.fullmatch(username):
            raise AccountError(
                "A username is 1 to 255 visible ASCII characters without a colon, unlike "
                f"{username[:MAX_NAME_CHARS]!r}.",
                member="username",
            )
        _check_name(name)
        password_hash = await self.hash(password)
        # RFC 9700 section 4.15: a client must not pass for a user by its id.
        if await self._store.clients.get_client(username) is not None:
            raise UserExistsError(username)
        user = self._make(username, password_hash, name)
        if not await self.insert(user):
            raise UserExistsError(username)
        return user

    async def welcome(self, username: str, *, name: str = "") -> User:
        """The user that an upstream provider vouches for, made when it comes for the first time.
        Raises `UserDisabledError` and `StoreUnavailableError`."""
        shown = name[:MAX_NAME_CHARS] if name.isprintable() else ""
        for _ in range(ATTEMPTS):
            user = await self.get(username)
            if user is not None:
                if user.disabled_at is not None:
                    raise UserDisabledError
                return user
            user = self._make(username, "", shown)
            if await self.insert(user):
                return user
        raise UserExistsError(username)

    def _make(self, username: str, password_hash: str, name: str) -> User:
        now = self._wall_clock()
        return User(
            username=username,
            created_at=now,
            # From the clock, so that a user who is deleted and created again is another one.
            generation=int(now * 1_000_000),
            password_hash=password_hash,
            name=name,
        )

    async def rename(self, username: str, name: str) -> User | None:
        """Give a user another display name; None where there is no such user.

        Raises `AccountError` and `StoreUnavailableError`.
        """
        _check_name(name)
        return await self.change(username, lambda user: replace(user, name=name))

    async def set_password(
        self, username: str, password: str, *, revoke_tokens: bool = False
    ) -> User | None:
        """Give a user a new password, which ends all sessions; None where there is no such user.

        What clients were given in the name of the user stays, unless `revoke_tokens`.

        Raises `AccountError` also for a user without a password here,
        `TemporarilyUnavailableError` and `StoreUnavailableError`.
        """
        password_hash = await self.hash(password)

        def change(user: User) -> User:
            if not user.password_hash:
                raise AccountError(f"{username!r} signs in at the upstream provider.")
            return replace(user, password_hash=password_hash, generation=user.generation + 1)

        changed = await self.change(username, change)
        if changed is not None:
            await self._store.records.delete_owned_records(SESSION, user_owner(username))
            if revoke_tokens:
                await self._revoke_tokens(username)
        return changed

    async def disable(self, username: str) -> int | None:
        """Keep a user from signing in, with all sessions ended and all tokens revoked: returns how
        many access tokens were live; None where there is no such user. Consents stay. Raises
        `AccountError` and `StoreUnavailableError`; it can then be called again."""

        def change(user: User) -> User:
            since = user.disabled_at or self._wall_clock()
            # Another generation: a code that was issued before is worth nothing, even later.
            return replace(user, disabled_at=since, generation=user.generation + 1)

        if await self.change(username, change) is None:
            return None
        await self._store.records.delete_owned_records(SESSION, user_owner(username))
        return await self._revoke_tokens(username)

    async def enable(self, username: str) -> User | None:
        """Let a user sign in again; None where there is no such user. Raises `AccountError` and
        `StoreUnavailableError`."""
        return await self.change(username, lambda user: replace(user, disabled_at=None))

    async def _revoke_tokens(self, username: str) -> int:
        """Revoke what clients have in the name of a user. How many access tokens were live."""
        # Those of refresh tokens end with them, uncounted; and until then more may be issued.
        revoked = await self._tokens.revoke_all(username)
        await self._end_refresh_tokens(username)
        return revoked + await self._tokens.revoke_all(username)

    async def delete(self, username: str) -> int | None:
        """Delete a user with all sessions, consents and tokens: returns how many access tokens
        were live; None where there was no such user. Raises `StoreUnavailableError`; it can then
        be called again."""
        # First who issues can no more find the user; what was issued before is found below.
        was_there = await self.remove(username)
        for kind in ENDS_WITH_USER:
            await self._store.records.delete_owned_records(kind, user_owner(username))
        revoked = await self._revoke_tokens(username)
        return revoked if was_there or revoked else None
