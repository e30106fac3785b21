"""That somebody signed in: a session is a record of the store, and a secret in one browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from gateway.oauth.credentials import random_text
from gateway.oauth.models import Clock, Record, RecordStore, digest_token, user_owner
from gateway.oauth.users.directory import User, UserDirectory

SESSION = "session"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """A browser in which somebody is signed in."""

    secret: str = field(repr=False)
    """What its cookie holds; kept as a digest."""
    user: User
    signed_in_at: float
    """Unix time, seconds."""


@dataclass(frozen=True, slots=True)
class _Kept:
    username: str
    generation: int
    signed_in_at: float


class Sessions:
    """Begins, finds and ends sessions."""

    def __init__(
        self,
        records: RecordStore,
        users: UserDirectory,
        *,
        ttl_s: float,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        self._records = records
        self._users = users
        self.ttl_s = ttl_s
        """How long a session lasts, in seconds, whatever is done in it."""
        self._wall_clock = wall_clock
        self._random_text = random_text

    async def begin(self, user: User, *, old_secret: str | None = None) -> Session:
        """A new session, with a secret that was in no browser before; the old one of this
        browser ends. Raises `StoreUnavailableError`."""
        if old_secret is not None:
            await self.end(old_secret)
        now, secret = self._wall_clock(), self._random_text(SECRET_BYTES)
        kept = _Kept(user.username, user.generation, now)
        await self._records.add_record(
            Record(
                kind=SESSION,
                key=_key(secret),
                owner=user_owner(user.username),
                value=msgspec.json.encode(kept),
                expires_at=now + self.ttl_s,
            )
        )
        return Session(secret, user, now)

    async def find(self, secret: str | None) -> Session | None:
        """The session of a browser, None where there is none, or its user is gone or has another
        password by now. Raises `StoreUnavailableError`."""
        record = await self._records.get_record(SESSION, _key(secret)) if secret else None
        if record is None or secret is None:
            return None
        kept = msgspec.json.decode(record.value, type=_Kept)
        user = await self._users.get(kept.username)
        if user is None or user.generation != kept.generation:
            return None
        return Session(secret, user, kept.signed_in_at)

    async def end(self, secret: str) -> None:
        """End a session. Raises `StoreUnavailableError`."""
        await self._records.delete_record(SESSION, _key(secret))


def _key(secret: str) -> str:
    return digest_token(secret).hex()
