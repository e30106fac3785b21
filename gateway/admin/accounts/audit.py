"""The audit log: who changed what, when, and from where.

An entry is a record of the store that ends by itself. Its key counts down from a time far
away, so that the store's own order is newest first, and a page costs what it holds.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gateway.oauth.models import Clock, Record, RecordStore, StoreUnavailableError

KIND = "admin-audit"
_FAR_AWAY_US = 10**17
MAX_SCANNED = 5000
"""Entries that one search looks through before it returns what it has."""
_SCAN = 500
MAX_DETAIL = 500
_log = logging.getLogger("gateway.audit")


class _Kept(msgspec.Struct, frozen=True):
    at: float
    actor: str
    address: str
    action: str
    target: str
    detail: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One change."""

    key: str
    """Where the page after this entry begins."""
    at: float
    """Unix time, seconds."""
    actor: str
    address: str
    action: str
    """`client.create`, `token.revoke`, `session.begin`..."""
    target: str
    """What was changed: a client id, a name. Never a secret or token."""
    detail: str

    def contains(self, text: str) -> bool:
        """Whether any of it contains `text`, in whatever case."""
        parts = (self.actor, self.action, self.target, self.address, self.detail)
        return any(text.casefold() in part.casefold() for part in parts)


class AuditLog:
    """Kept for `retention_s` seconds in the store, and written to the log of the process."""

    def __init__(
        self, store: RecordStore, *, retention_s: float, wall_clock: Clock = time.time
    ) -> None:
        self._store = store
        self._retention_s = retention_s
        self._wall_clock = wall_clock

    async def note(
        self, actor: str, address: str, action: str, target: str = "", detail: str = ""
    ) -> None:
        """Write down what was done. It is done: a store that does not respond now is reported in
        the log of the process, and not to who did it."""
        now = self._wall_clock()
        kept = _Kept(now, actor, address, action, target[:MAX_DETAIL], detail[:MAX_DETAIL])
        _log.info("%s %r by %s from %s %s", action, kept.target, actor, address or "-", kept.detail)
        key = f"{_FAR_AWAY_US - int(now * 1_000_000):020d}-{secrets.token_hex(4)}"
        value = msgspec.json.encode(kept)
        record = Record(KIND, key, "", value, now + self._retention_s)
        try:
            await self._store.add_record(record)
        except StoreUnavailableError as error:
            _log.error("the entry above is not in the audit log: %s", error)

    async def page(self, *, after: str = "", limit: int = 50) -> Sequence[Entry]:
        """Up to `limit` entries, newest first, older than that of the key `after`.

        Raises `StoreUnavailableError`.
        """
        records = await self._store.list_records(KIND, after=after, limit=limit)
        entries = []
        for record in records:
            kept = msgspec.json.decode(record.value, type=_Kept)
            entries.append(
                Entry(
                    record.key, kept.at, kept.actor, kept.address, kept.action, kept.target,
                    kept.detail,
                )
            )  # fmt: skip
        return entries

    async def search(
        self, *, text: str = "", since: float = 0.0, after: str = "", limit: int = 50
    ) -> tuple[Sequence[Entry], str]:
        """Up to `limit` entries that contain `text`, newest first, none older than `since` (Unix
        time), and the key after which there may be more, or an empty one. It may be less than
        `limit` where few of many fit. Raises `StoreUnavailableError`.
        """
        found: list[Entry] = []
        for _ in range(MAX_SCANNED // _SCAN):
            size = _SCAN if text else min(_SCAN, limit + 1)
            page = await self.page(after=after, limit=size)
            for entry in page:
                if entry.at < since:
                    return found, ""
                if len(found) == limit:
                    return found, after
                after = entry.key
                if not text or entry.contains(text):
                    found.append(entry)
            if len(page) < size:
                return found, ""
        return found, after
