"""The records of the Redis store: hashes, each with its place in the indexes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.oauth.models import Change, Record
from gateway.store.redis import scripts
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.values import as_record, change_arguments, end_text, record_arguments

REMOVE_BATCH = 500
LOOK_AT = 500
"""Records that one call looks at: most of them may have ended."""
RECORD_FIELDS = ("owner", "value", "expires", "version")


class RedisRecords:
    """Implements `gateway.oauth.models.RecordStore`."""

    def __init__(self, calls: RedisCalls) -> None:
        self._calls = calls

    async def now(self) -> float:
        # By a script, which a cluster sends to one node.
        seconds, microseconds = await self._calls.call("get_time", scripts.GET_TIME)
        return int(seconds) + int(microseconds) / 1e6

    async def add_record(self, record: Record) -> bool:
        now = self._calls.wall_clock()
        added = await self._calls.call(
            "add_record",
            scripts.ADD_RECORD,
            *(now, record.kind, record.key),
            *record_arguments(record, now),
        )
        return bool(added)

    async def get_record(self, kind: str, key: str) -> Record | None:
        name = self._calls.keys.record(kind, key)
        fields = await self._calls.run(
            "get_record", lambda redis: redis.hmget(name, *RECORD_FIELDS)
        )
        if fields[0] is None:
            return None
        record = as_record(kind, key, fields)
        is_live = record.expires_at is None or record.expires_at > self._calls.wall_clock()
        return record if is_live else None

    async def take_record(self, kind: str, key: str) -> Record | None:
        return await self._take(kind, key, None)

    async def _take(self, kind: str, key: str, change: Change | None) -> Record | None:
        fields = await self._calls.change(
            "take_record",
            scripts.TAKE_RECORD,
            change,
            *(self._calls.wall_clock(), kind, key, *change_arguments(change)),
        )
        return None if fields is None else as_record(kind, key, fields)

    async def put_record(self, record: Record) -> Record:
        now = self._calls.wall_clock()
        version = await self._calls.call(
            "put_record",
            scripts.PUT_RECORD,
            *(now, record.kind, record.key),
            *record_arguments(record, now),
        )
        return replace(record, version=version)

    async def swap_record(self, old: Record, new: Record, *, change: Change | None = None) -> bool:
        now = self._calls.wall_clock()
        swapped = await self._calls.change(
            "swap_record",
            scripts.SWAP_RECORD,
            change,
            *(now, old.kind, old.key),
            *record_arguments(replace(new, version=old.version + 1), now),
            *(old.owner, old.value, end_text(old.expires_at), old.version),
            *change_arguments(change),
        )
        return bool(swapped)

    async def delete_record(self, kind: str, key: str, *, change: Change | None = None) -> bool:
        return await self._take(kind, key, change) is not None

    async def delete_owned_records(self, kind: str, owner: str) -> int:
        return await self._delete(owner, kind)

    async def delete_most_of_owner(self, owner: str) -> None:
        """Delete records of an owner that is about to be deleted, but for a last batch, which goes
        in the same step as the owner."""
        await self._delete(owner, leave=REMOVE_BATCH)

    async def _delete(self, owner: str, kind: str = "", *, leave: int = 0) -> int:
        """Delete records of an owner, of one kind or all, while there are more than `leave`: in
        batches, because Redis does nothing else meanwhile. Returns how many were live."""
        removed: int = 0
        while True:
            seen, live = await self._calls.call(
                "delete_owned_records",
                scripts.DELETE_OWNED_RECORDS,
                *(self._calls.wall_clock(), kind, owner, REMOVE_BATCH, leave),
            )
            removed += live
            if seen < REMOVE_BATCH:
                return removed

    async def list_records(
        self, kind: str, *, after: str = "", limit: int = 100, owner: str | None = None
    ) -> Sequence[Record]:
        records: list[Record] = []
        while len(records) < limit:
            following, found = await self._calls.call(
                "list_records",
                scripts.LIST_RECORDS,
                *(
                    self._calls.wall_clock(),
                    kind,
                    after,
                    limit - len(records),
                    owner or "",
                    LOOK_AT,
                ),
            )
            records += [as_record(kind, key.decode(), fields) for key, fields in found]
            after = following.decode()
            if not after:
                break
        return records
