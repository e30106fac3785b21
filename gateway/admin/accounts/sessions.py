"""Sessions at the console: known to the store by digest, ended by time or by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from gateway.oauth.credentials import random_text
from gateway.oauth.models import Clock, Record, RecordStore, digest_token

KIND = "admin-session"
TOUCH_S = 30.0
"""How often the use of a session is written down."""


def owner_of(name: str) -> str:
    """The owner of the records that belong to an admin user."""
    return f"admin:{name}"


class _Kept(msgspec.Struct, frozen=True):
    user: str
    created_at: float
    used_at: float


@dataclass(frozen=True, slots=True)
class Session:
    """A browser in which somebody signed in."""

    secret: str = field(repr=False)
    """What the cookie holds."""
    user: str
    created_at: float
    """Unix time, seconds."""


class Sessions:
    """Every method may raise `StoreUnavailableError`."""

    def __init__(
        self,
        store: RecordStore,
        *,
        idle_s: float,
        session_s: float,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        """A session ends `idle_s` after its last request and `session_s` after its first."""
        self._store = store
        self._idle_s = idle_s
        self._session_s = session_s
        self._wall_clock = wall_clock
        self._random_text = random_text

    async def begin(self, user: str) -> Session:
        """A new session. Its secret is new, so nobody can have fixed it before."""
        now, secret = self._wall_clock(), self._random_text(32)
        await self._store.add_record(self._record(secret, _Kept(user, now, now)))
        return Session(secret, user, now)

    async def find(self, secret: str, *, is_use: bool = True) -> Session | None:
        """The session, or None where there is none or it has ended. With `is_use` it goes on."""
        record = await self._store.get_record(KIND, _key(secret))
        if record is None:
            return None
        kept, now = msgspec.json.decode(record.value, type=_Kept), self._wall_clock()
        # The configuration may have become stricter than it was when this was written.
        if now >= min(kept.used_at + self._idle_s, kept.created_at + self._session_s):
            await self._store.delete_record(KIND, record.key)
            return None
        if is_use and now - kept.used_at >= min(TOUCH_S, self._idle_s / 4):
            # Swapped, not put: a session that is ended meanwhile must not come back.
            used = _Kept(kept.user, kept.created_at, now)
            await self._store.swap_record(record, self._record(secret, used))
        return Session(secret, kept.user, kept.created_at)

    async def end(self, secret: str) -> None:
        """End a session."""
        await self._store.delete_record(KIND, _key(secret))

    async def end_all(self, user: str) -> int:
        """End all sessions of a user. How many there were."""
        return await self._store.delete_owned_records(KIND, owner_of(user))

    def _record(self, secret: str, kept: _Kept) -> Record:
        end = min(kept.used_at + self._idle_s, kept.created_at + self._session_s)
        value = msgspec.json.encode(kept)
        return Record(KIND, _key(secret), owner_of(kept.user), value, end)


def _key(secret: str) -> str:
    return digest_token(secret).hex()
