"""The records of the PostgreSQL store."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.oauth.models import Change, Record
from gateway.store.link import Connection
from gateway.store.postgresql.calls import PostgresCalls, is_text
from gateway.store.rows import RECORD_COLUMNS

REMOVE_BATCH = 1000
INSERT_RECORD = (
    f"INSERT INTO gateway.records AS kept ({RECORD_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6)"
    " ON CONFLICT (kind, key) DO UPDATE SET owner = excluded.owner, value = excluded.value,"
    " expires_at = excluded.expires_at, version = excluded.version"
)
"""In place of a namesake."""


def _is_live(now: str) -> str:
    return f"(expires_at IS NULL OR expires_at > {now})"


class PostgresRecords:
    """Implements `gateway.oauth.models.RecordStore`."""

    def __init__(self, calls: PostgresCalls) -> None:
        self._calls = calls

    async def now(self) -> float:
        query = "SELECT extract(epoch FROM clock_timestamp())::double precision"
        now: float = await self._calls.value("get_time", query)
        return now

    async def add_record(self, record: Record) -> bool:
        added = await self._calls.execute(
            "add_record",
            f"{INSERT_RECORD} WHERE kept.expires_at <= $7",
            *record_values(record),
            self._calls.wall_clock(),
        )
        return added == 1

    async def get_record(self, kind: str, key: str) -> Record | None:
        if not is_text(key):
            return None
        query = (
            f"SELECT {RECORD_COLUMNS} FROM gateway.records"
            f" WHERE kind = $1 AND key = $2 AND {_is_live('$3')}"
        )
        return _as_record(
            await self._calls.row("get_record", query, kind, key, self._calls.wall_clock())
        )

    async def take_record(self, kind: str, key: str) -> Record | None:
        return await self._take(kind, key, None)

    async def _take(self, kind: str, key: str, change: Change | None) -> Record | None:
        if not is_text(key):
            return None
        statement = (
            f"DELETE FROM gateway.records WHERE kind = $1 AND key = $2 RETURNING {RECORD_COLUMNS}"
        )
        record = _as_record(await self._change("take_record", change, statement, kind, key))
        if record is None or record.expires_at is None:
            return record
        return record if record.expires_at > self._calls.wall_clock() else None

    async def put_record(self, record: Record) -> Record:
        # Of a namesake that has ended, nothing is known.
        statement = INSERT_RECORD.replace(
            "version = excluded.version",
            "version = CASE WHEN kept.expires_at <= $7 THEN excluded.version"
            " ELSE kept.version + 1 END RETURNING version",
        )
        version = await self._calls.value(
            "put_record", statement, *record_values(record), self._calls.wall_clock()
        )
        return replace(record, version=version)

    async def swap_record(self, old: Record, new: Record, *, change: Change | None = None) -> bool:
        swapped = await self._change(
            "swap_record",
            change,
            "UPDATE gateway.records SET owner = $3, value = $4, expires_at = $5, version = $6"
            " WHERE kind = $1 AND key = $2 AND owner = $7 AND value = $8"
            f" AND expires_at IS NOT DISTINCT FROM $9 AND version = $10 AND {_is_live('$11')}"
            " RETURNING true",
            *record_values(replace(new, version=old.version + 1)),
            *(old.owner, old.value, old.expires_at, old.version, self._calls.wall_clock()),
        )
        return swapped is not None

    async def delete_record(self, kind: str, key: str, *, change: Change | None = None) -> bool:
        return await self._take(kind, key, change) is not None

    async def _change(
        self, operation: str, change: Change | None, statement: str, *values: Any
    ) -> Any:
        """The row that a statement returns, or None; where there is one, `change` is announced."""
        if change is None:
            return await self._calls.row(operation, statement, *values)
        return await self._calls.change(
            operation, lambda db: db.fetchrow(statement, *values), change
        )

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
        query = "SELECT 1 FROM gateway.records WHERE owner = $1 LIMIT 1 OFFSET $2"
        while await self._calls.value("count_records", query, owner, REMOVE_BATCH):
            await self._remove_batch(owner, None)

    async def _remove_batch(self, owner: str, kind: str | None) -> tuple[int, int]:
        """Remove records of an owner, of one kind or all, at most `REMOVE_BATCH`: no transaction
        is to take long. Returns how many there were, and how many of them were live."""
        statement = (
            "DELETE FROM gateway.records WHERE (kind, key) IN (SELECT kind, key"
            " FROM gateway.records WHERE owner = $1 AND ($2::text IS NULL OR kind = $2)"
            f" LIMIT {REMOVE_BATCH}) RETURNING {_is_live('$3')}"
        )
        rows = await self._calls.rows(
            "delete_owned_records", statement, owner, kind, self._calls.wall_clock()
        )
        return len(rows), sum(is_live for (is_live,) in rows)

    async def list_records(
        self, kind: str, *, after: str = "", limit: int = 100, owner: str | None = None
    ) -> Sequence[Record]:
        if not (is_text(after) and is_text(owner or "")):
            return []
        query = (
            f"SELECT {RECORD_COLUMNS} FROM gateway.records WHERE kind = $1 AND key > $2"
            f" AND ($3::text IS NULL OR owner = $3) AND {_is_live('$4')} ORDER BY key LIMIT $5"
        )
        rows = await self._calls.rows(
            "list_records", query, kind, after, owner, self._calls.wall_clock(), limit
        )
        return [Record(*row) for row in rows]


async def insert_records(db: Connection, records: Sequence[Record]) -> None:
    """Keep records in place of their namesakes."""
    await db.executemany(INSERT_RECORD, [record_values(record) for record in records])


def record_values(record: Record) -> tuple[Any, ...]:
    """The row of `RECORD_COLUMNS`."""
    return (
        record.kind, record.key, record.owner, record.value, record.expires_at, record.version,
    )  # fmt: skip


def _as_record(row: Sequence[Any] | None) -> Record | None:
    return None if row is None else Record(*row)
