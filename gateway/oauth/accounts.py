"""Accounts with passwords, and the sessions of those who signed in: records of the store.

Users of the provider (`oauth.users`) and admin users (`admin.accounts`) are kept by the same code,
under one password policy. Passwords are kept as argon2id hashes, sessions as SHA-256 digests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from re import Pattern
from typing import Generic, Protocol, TypeVar

import msgspec

from gateway.oauth.credentials import SecretHasher, random_text
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import Clock, Record, RecordStore, digest_token
from gateway.suggestions import did_you_mean

MIN_PASSWORD_CHARS = 12
"""OWASP ASVS 2.1.1; there are no rules about kinds of characters."""
MAX_PASSWORD_CHARS = 256
SECRET_BYTES = 32
TOUCH_S = 30.0
"""How often the use of a session is written down."""
ATTEMPTS = 5
MAX_COMPARED = 1000
"""How many names a wrong one is compared with."""


class _Disableable(Protocol):
    @property
    def disabled_at(self) -> float | None:
        """Unix time, seconds, at which the account was disabled; None where it is not."""


Account = TypeVar("Account", bound=_Disableable)


class AccountError(OAuthError):
    """An account cannot be created or changed as requested; the text says why."""

    error = "invalid_account"


class AccountExistsError(AccountError):
    """The name is taken."""

    status = 409
    error = "account_already_exists"


class NoSuchAccountError(AccountError):
    """There is no account of this name."""

    status = 404
    error = "no_such_account"


class PasswordAccounts(Generic[Account]):
    """The accounts of one kind. Every method may raise `StoreUnavailableError`."""

    def __init__(
        self,
        records: RecordStore,
        hasher: SecretHasher,
        *,
        kind: str,
        model: type[Account],
        names: Pattern[str],
        name_of: Callable[[Account], str],
        hash_of: Callable[[Account], str],
        generation_of: Callable[[Account], int],
        owner_of: Callable[[str], str],
    ) -> None:
        """`generation_of` an account differs where its sessions before are over; `owner_of` a
        name is the owner of its records."""
        self._records = records
        self._hasher = hasher
        self._kind = kind
        self._model = model
        self._names = names
        self.name_of = name_of
        self._hash_of = hash_of
        self.generation_of = generation_of
        self.owner_of = owner_of

    async def exist(self) -> bool:
        """Whether there is any."""
        return bool(await self._records.list_records(self._kind, limit=1))

    async def get(self, name: str) -> Account | None:
        """The account, or None."""
        record = await self._records.get_record(self._kind, name)
        return None if record is None else self._read(record)

    async def list_users(self, *, after: str = "", limit: int = 100) -> Sequence[Account]:
        """Up to `limit` accounts whose name sorts after `after`, in that order."""
        records = await self._records.list_records(self._kind, after=after, limit=limit)
        return [self._read(record) for record in records]

    async def missing(self, kind: str, name: str) -> NoSuchAccountError:
        """The error for an account that is not there, with the name that is near."""
        known = map(self.name_of, await self.list_users(limit=MAX_COMPARED))
        hint = did_you_mean(name, known) or "."
        return NoSuchAccountError(f"There is no {kind} {name[:100]!r}{hint}")

    async def insert(self, account: Account) -> bool:
        """Add an account, unless there is one of this name."""
        return await self._records.add_record(self._record(account))

    async def change(self, name: str, change: Callable[[Account], Account]) -> Account | None:
        """Change an account; None where there is none. Raises `AccountError` where others change
        it all the time, and what `change` raises."""
        for _ in range(ATTEMPTS):
            record = await self._records.get_record(self._kind, name)
            if record is None:
                return None
            changed = change(self._read(record))
            if await self._records.swap_record(record, self._record(changed)):
                return changed
        raise AccountError(f"The account {name!r} is being changed concurrently; try again.")

    async def remove(self, name: str) -> bool:
        """Remove an account; whether there was one."""
        return await self._records.delete_record(self._kind, name)

    async def hash(self, password: str) -> str:
        """The hash of a new password. Raises `AccountError` for one that is against the policy,
        and `TemporarilyUnavailableError`."""
        if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
            raise AccountError(
                f"A password is {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters long; this "
                f"one has {len(password)}.",
                member="password",
            )
        return await self._hasher.hash(password)

    async def verify(self, name: str, password: str, *, source: str = "") -> Account | None:
        """The account with this password, which `source` shows, else None: whether the name or the
        password was wrong, or the account is disabled, is not disclosed, not even by the time it
        takes. Raises `TemporarilyUnavailableError`."""
        account = await self.get(name) if self._names.fullmatch(name) else None
        if len(password) > MAX_PASSWORD_CHARS:
            password, account = "", None
        password_hash = None if account is None else self._hash_of(account) or None
        is_right = await self._hasher.verify(password, password_hash, source=source)
        return account if is_right and account and account.disabled_at is None else None

    def _record(self, account: Account) -> Record:
        name = self.name_of(account)
        value = msgspec.json.encode(account)
        return Record(self._kind, name, self.owner_of(name), value, expires_at=None)

    def _read(self, record: Record) -> Account:
        return msgspec.json.decode(record.value, type=self._model)


@dataclass(frozen=True, slots=True)
class Session(Generic[Account]):
    """A browser in which a user is signed in."""

    secret: str = field(repr=False)
    """What its cookie holds; kept as a digest."""
    user: Account
    signed_in_at: float
    """Unix time, seconds."""


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    username: str
    generation: int
    signed_in_at: float
    used_at: float = 0.0


class Sessions(Generic[Account]):
    """The sessions of accounts. Every method may raise `StoreUnavailableError`."""

    def __init__(
        self,
        records: RecordStore,
        accounts: PasswordAccounts[Account],
        *,
        kind: str,
        ttl_s: float,
        idle_s: float | None = None,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        """A session ends `ttl_s` after its first request and `idle_s`, if given, after its last."""
        self._records = records
        self._accounts = accounts
        self._kind = kind
        self.ttl_s = ttl_s
        self._idle_s = idle_s
        self._wall_clock = wall_clock
        self._random_text = random_text

    async def begin(self, user: Account, *, old_secret: str | None = None) -> Session[Account]:
        """A new session, with a secret that was in no browser before; the old one of this
        browser ends."""
        if old_secret is not None:
            await self.end(old_secret)
        now, secret = self._wall_clock(), self._random_text(SECRET_BYTES)
        accounts = self._accounts
        kept = _Kept(accounts.name_of(user), accounts.generation_of(user), now)
        await self._records.add_record(self._record(_key(secret), kept))
        return Session(secret, user, now)

    async def find(self, secret: str | None, *, is_use: bool = True) -> Session[Account] | None:
        """The session of a browser, None where there is none, it has ended, or its user is gone,
        is disabled or has another password by now. With `is_use` its idle time starts again."""
        record = await self._records.get_record(self._kind, _key(secret)) if secret else None
        if record is None or secret is None:
            return None
        try:
            kept = msgspec.json.decode(record.value, type=_Kept)
        except msgspec.ValidationError:  # of an older version
            return None
        now = self._wall_clock()
        # The configuration may have become stricter than it was when this was written.
        if now >= self._end(kept):
            await self._records.delete_record(self._kind, record.key)
            return None
        user = await self._accounts.get(kept.username)
        if user is None or self._accounts.generation_of(user) != kept.generation:
            return None
        if user.disabled_at is not None:
            return None
        if self._idle_s is not None and is_use:
            used_at = kept.used_at or kept.signed_in_at
            if now - used_at >= min(TOUCH_S, self._idle_s / 4):
                # Swapped, not put: a session that is ended meanwhile must not come back.
                used = msgspec.structs.replace(kept, used_at=now)
                await self._records.swap_record(record, self._record(record.key, used))
        return Session(secret, user, kept.signed_in_at)

    async def end(self, secret: str) -> None:
        """End a session."""
        await self._records.delete_record(self._kind, _key(secret))

    async def end_all(self, name: str) -> int:
        """End all sessions of a user. How many there were."""
        owner = self._accounts.owner_of(name)
        return await self._records.delete_owned_records(self._kind, owner)

    def _record(self, key: str, kept: _Kept) -> Record:
        owner = self._accounts.owner_of(kept.username)
        return Record(self._kind, key, owner, msgspec.json.encode(kept), self._end(kept))

    def _end(self, kept: _Kept) -> float:
        end = kept.signed_in_at + self.ttl_s
        if self._idle_s is None:
            return end
        return min(end, (kept.used_at or kept.signed_in_at) + self._idle_s)


def _key(secret: str) -> str:
    return digest_token(secret).hex()
