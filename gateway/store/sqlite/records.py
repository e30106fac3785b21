"""The records of the SQLite store."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from gateway.oauth.models import Change, Record
from gateway.store.rows import RECORD_COLUMNS
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.statements import find_record, insert_record

REMOVE_BATCH = 1000
_LIVE = "(expires_at IS NULL OR expires_at > :now)"


class SqliteRecords:
    """Implements `gateway.oauth.models.RecordStore`.

    Writes are durable: a code redeemed before a power cut must not be good after it.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def now(self) -> float:
        return self._file.wall_clock()  # all processes on a file have the clock of its host

    async def add_record(self, record: Record) -> bool:
        now = self._file.wall_clock()

        def work(db: sqlite3.Connection) -> bool:
            if find_record(db, record.kind, record.key, now) is not None:
                return False
            insert_record(db, record, record.version)
            return True

        return await self._file.write("add_record", work, is_durable=True)

    async def get_record(self, kind: str, key: str) -> Record | None:
        now = self._file.wall_clock()
        return await self._file.read("get_record", lambda db: find_record(db, kind, key, now))

    async def take_record(self, kind: str, key: str) -> Record | None:
        return await self._take(kind, key, None)

    async def _take(self, kind: str, key: str, change: Change | None) -> Record | None:
        now = self._file.wall_clock()

        def work(db: sqlite3.Connection) -> Record | None:
            record = find_record(db, kind, key, now)
            db.execute("DELETE FROM records WHERE kind = ? AND key = ?", (kind, key))
            return record

        return await self._file.change("take_record", work, change)

    async def put_record(self, record: Record) -> Record:
        now = self._file.wall_clock()

        def work(db: sqlite3.Connection) -> Record:
            old = find_record(db, record.kind, record.key, now)
            version = record.version if old is None else old.version + 1
            insert_record(db, record, version)
            return replace(record, version=version)

        return await self._file.write("put_record", work, is_durable=True)

    async def swap_record(self, old: Record, new: Record, *, change: Change | None = None) -> bool:
        now = self._file.wall_clock()

        def work(db: sqlite3.Connection) -> bool:
            if find_record(db, old.kind, old.key, now) != old:
                return False
            insert_record(db, new, old.version + 1)
            return True

        return await self._file.change("swap_record", work, change)

    async def delete_record(self, kind: str, key: str, *, change: Change | None = None) -> bool:
        return await self._take(kind, key, change) is not None

    async def delete_owned_records(self, kind: str, owner: str) -> int:
        removed = 0
        while True:
            gone, live = await self._remove_batch(owner, kind)
            removed += live
            if gone < REMOVE_BATCH:
                return removed

    async def remove_most_of_owner(self, owner: str) -> None:
        """Remove records of an owner that is about to be deleted, but for a last batch, which goes
        in the same transaction as the owner."""
        query = "SELECT 1 FROM records WHERE owner = ? LIMIT 1 OFFSET ?"

        def has_more(db: sqlite3.Connection) -> bool:
            return db.execute(query, (owner, REMOVE_BATCH)).fetchone() is not None

        while await self._file.read("count_records", has_more):
            await self._remove_batch(owner, None)

    async def _remove_batch(self, owner: str, kind: str | None) -> tuple[int, int]:
        """Remove records of an owner, of one kind or all, at most `REMOVE_BATCH`: a transaction of
        its own, so that others' writes need not wait for long. Returns how many there were, and how
        many of them were live."""
        which = {"kind": kind, "owner": owner, "now": self._file.wall_clock()}
        where = "owner = :owner" + ("" if kind is None else " AND kind = :kind")
        chosen = f"SELECT kind, key FROM records WHERE {where} LIMIT {REMOVE_BATCH}"

        def work(db: sqlite3.Connection) -> tuple[int, int]:
            (live,) = db.execute(
                f"SELECT count(*) FROM records WHERE (kind, key) IN ({chosen}) AND {_LIVE}", which
            ).fetchone()
            gone = db.execute(f"DELETE FROM records WHERE (kind, key) IN ({chosen})", which)
            return gone.rowcount, int(live)

        return await self._file.write("delete_owned_records", work, is_durable=True)

    async def list_records(
        self, kind: str, *, after: str = "", limit: int = 100, owner: str | None = None
    ) -> Sequence[Record]:
        query = (
            f"SELECT {RECORD_COLUMNS} FROM records WHERE kind = :kind AND key > :after"
            f" {'AND owner = :owner' if owner is not None else ''} AND {_LIVE}"
            " ORDER BY key LIMIT :limit"
        )
        which = {
            "kind": kind, "after": after, "owner": owner, "limit": limit,
            "now": self._file.wall_clock(),
        }  # fmt: skip
        return await self._file.read(
            "list_records", lambda db: [Record(*row) for row in db.execute(query, which)]
        )
