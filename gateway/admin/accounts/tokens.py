"""Bearer tokens of the admin API, each with a name, a role and an end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from gateway.admin.accounts.users import Role
from gateway.oauth.accounts import AccountError
from gateway.oauth.credentials import random_text
from gateway.oauth.models import Clock, Record, RecordStore, digest_token

KIND = "admin-token"
PREFIX = "gwa_"
"""Begins every token, so that scanners of repositories know one when they see it."""
MAX_TOKENS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Kept(msgspec.Struct, frozen=True):
    name: str
    role: Role
    created_at: float


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token without its value: that exists only where it was printed."""

    name: str
    role: Role
    created_at: float
    """Unix time, seconds."""
    expires_at: float | None
    """Unix time; None is never."""


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
            raise AccountError("a name is 1 to 64 letters, digits, dots, hyphens and underscores")
        now = self._wall_clock()
        end = None if ttl_s is None else now + ttl_s
        value = PREFIX + self._random_text(32)
        digest = digest_token(value).hex()
        # Kept by digest, for those who show it, and by name, for those who look after it.
        taken = Record(f"{KIND}-name", name, "", digest.encode(), end)
        if not await self._store.add_record(taken):
            raise AccountError(f"there is a token {name!r} already")
        kept = _Kept(name, role, now)
        await self._store.add_record(Record(KIND, digest, "", msgspec.json.encode(kept), end))
        return value, ApiToken(name, role, now, end)

    async def find(self, value: str) -> ApiToken | None:
        """The token, or None where there is none or it has expired."""
        if not value.startswith(PREFIX):
            return None
        record = await self._store.get_record(KIND, digest_token(value).hex())
        return None if record is None else _as_token(record)

    async def exist(self) -> bool:
        """Whether there is any."""
        return bool(await self._store.list_records(KIND, limit=1))

    async def list(self) -> Sequence[ApiToken]:
        """All of them, by name."""
        records = await self._store.list_records(KIND, limit=MAX_TOKENS)
        return sorted(map(_as_token, records), key=lambda token: token.name)

    async def revoke(self, name: str) -> None:
        """End a token now. Raises `AccountError` where there is none."""
        record = await self._store.get_record(f"{KIND}-name", name)
        if record is None:
            raise AccountError(f"there is no token {name!r}")
        await self._store.delete_record(KIND, record.value.decode())
        await self._store.delete_record(f"{KIND}-name", name)


def _as_token(record: Record) -> ApiToken:
    kept = msgspec.json.decode(record.value, type=_Kept)
    return ApiToken(kept.name, kept.role, kept.created_at, record.expires_at)
