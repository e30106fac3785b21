"""Bearer tokens of the admin API, each with a name, a role and an end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from gateway.admin.accounts.users import MAX_SHOWN, Role
from gateway.oauth.accounts import AccountError, AccountExistsError, NoSuchAccountError
from gateway.oauth.credentials import random_text
from gateway.oauth.models import Clock, Record, RecordStore, digest_token
from gateway.suggestions import did_you_mean

KIND = "admin-token"
PREFIX = "gwa_"
"""Begins every token, so that scanners of repositories know one when they see it."""
MAX_TOKENS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Kept(msgspec.Struct, frozen=True):
    name: str
    role: Role
    created_at: float
    disabled_at: float | None = None


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token without its value: that exists only where it was printed."""

    name: str
    role: Role
    created_at: float
    """Unix time, seconds."""
    expires_at: float | None
    """Unix time; None is never."""
    disabled_at: float | None = None
    """Unix time, since when it is rejected; None where it is accepted."""


class ApiTokens:
    """Every method may raise `StoreUnavailableError`."""

    def __init__(
        self,
        store: RecordStore,
        *,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._random_text = random_text

    async def create(self, name: str, role: Role, *, ttl_s: float | None) -> tuple[str, ApiToken]:
        """A new token: its value and what it is. Raises `AccountError`."""
        if not _NAME.fullmatch(name):
            raise AccountError(
                "A name is 1 to 64 letters, digits, dots, hyphens and underscores, and begins with "
                f"a letter or digit, unlike {name[:MAX_SHOWN]!r}.",
                member="name",
            )
        now = self._wall_clock()
        value, record = self._make(_Kept(name, role, now), None if ttl_s is None else now + ttl_s)
        # Kept by digest, for those who show it, and then by name, for those who look after it: a
        # name never stands for nothing, whenever the store fails.
        await self._store.add_record(record)
        if not await self._store.add_record(_name_record(name, record)):
            await self._store.delete_record(KIND, record.key)
            raise AccountExistsError(f"There is a token {name!r} already.", member="name")
        return value, _as_token(record)

    def _make(self, kept: _Kept, end: float | None) -> tuple[str, Record]:
        value = PREFIX + self._random_text(32)
        digest = digest_token(value).hex()
        return value, Record(KIND, digest, "", msgspec.json.encode(kept), end)

    async def find(self, value: str) -> ApiToken | None:
        """The token, or None where there is none, it has expired or is disabled."""
        if not value.startswith(PREFIX):
            return None
        record = await self._store.get_record(KIND, digest_token(value).hex())
        token = None if record is None else _as_token(record)
        return token if token and token.disabled_at is None else None

    async def get(self, name: str) -> ApiToken:
        """The token of a name. Raises `NoSuchAccountError`."""
        _, record = await self._named(name)
        return _as_token(record)

    async def exist(self) -> bool:
        """Whether there is any."""
        return bool(await self._store.list_records(KIND, limit=1))

    async def list(self) -> Sequence[ApiToken]:
        """All of them, by name."""
        records = await self._store.list_records(KIND, limit=MAX_TOKENS)
        return sorted(map(_as_token, records), key=lambda token: token.name)

    async def rotate(self, name: str) -> tuple[str, ApiToken]:
        """A new value for a token, which lasts as long as the old one was made for; that is
        rejected from now on. Raises `AccountError`."""
        named, old = await self._named(name)
        token, now = _as_token(old), self._wall_clock()
        end = None if token.expires_at is None else now + token.expires_at - token.created_at
        value, record = self._make(_Kept(name, token.role, now, token.disabled_at), end)
        await self._store.add_record(record)
        if not await self._store.swap_record(named, _name_record(name, record)):
            await self._store.delete_record(KIND, record.key)
            raise AccountError(f"The token {name!r} is being changed concurrently; try again.")
        before = await self._store.take_record(KIND, old.key)
        if before is not None and before.version != old.version:
            # It was disabled or enabled meanwhile.
            return value, await self._set_disabled(name, _as_token(before).disabled_at)
        return value, _as_token(record)

    async def disable(self, name: str) -> ApiToken:
        """Have a token rejected until it is enabled. Raises `AccountError`."""
        return await self._set_disabled(name, self._wall_clock())

    async def enable(self, name: str) -> ApiToken:
        """Have a token accepted again. Raises `AccountError`."""
        return await self._set_disabled(name, None)

    async def _set_disabled(self, name: str, disabled_at: float | None) -> ApiToken:
        _, record = await self._named(name)
        kept = msgspec.json.decode(record.value, type=_Kept)
        kept = msgspec.structs.replace(kept, disabled_at=disabled_at)
        changed = replace(record, value=msgspec.json.encode(kept))
        if not await self._store.swap_record(record, changed):
            raise AccountError(f"The token {name!r} is being changed concurrently; try again.")
        return _as_token(changed)

    async def revoke(self, name: str) -> None:
        """End a token now, with what is left of one that was never returned since the store failed.
        Raises `NoSuchAccountError`."""
        _, record = await self._named(name)
        for kept in (record, *await self._store.list_records(KIND, limit=MAX_TOKENS)):
            if _as_token(kept).name == name:
                await self._store.delete_record(KIND, kept.key)
        named = await self._store.take_record(f"{KIND}-name", name)
        if named is not None and named.value.decode() != record.key:  # rotated meanwhile
            await self._store.delete_record(KIND, named.value.decode())

    async def _named(self, name: str) -> tuple[Record, Record]:
        """The records of a token: that of its name, and its own. Raises `NoSuchAccountError`."""
        named = await self._store.get_record(f"{KIND}-name", name)
        record = named and await self._store.get_record(KIND, named.value.decode())
        if not named or not record:
            hint = did_you_mean(name, [token.name for token in await self.list()]) or "."
            raise NoSuchAccountError(f"There is no token {name[:MAX_SHOWN]!r}{hint}")
        return named, record


def _name_record(name: str, record: Record) -> Record:
    return Record(f"{KIND}-name", name, "", record.key.encode(), record.expires_at)


def _as_token(record: Record) -> ApiToken:
    kept = msgspec.json.decode(record.value, type=_Kept)
    return ApiToken(kept.name, kept.role, kept.created_at, record.expires_at, kept.disabled_at)
