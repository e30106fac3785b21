"""A lease in the store: of all processes on it, one holds it at a time, and thereby does something.

It ends by itself where its holder dies: as every record, by the clock of the process that looks.
Where clocks differ by as much as it lasts, two may hold it at once.
"""

from __future__ import annotations

import secrets
import time

from gateway.oauth.models import Clock, Record, RecordStore

KIND = "lease"


class Lease:
    """A lease by name. Every method may raise `StoreUnavailableError`."""

    def __init__(
        self,
        records: RecordStore,
        name: str,
        *,
        ttl_s: float,
        wall_clock: Clock = time.time,
    ) -> None:
        """`ttl_s` is how long it is held, unless it is extended."""
        self.ttl_s = ttl_s
        self._records = records
        self._name = name
        self._wall_clock = wall_clock
        self._value = secrets.token_bytes(16)
        self._held: Record | None = None

    @property
    def is_held(self) -> bool:
        """Whether this is the holder, as far as is known."""
        return self._held is not None

    async def acquire(self) -> bool:
        """Take it. False where another process holds it."""
        if await self._records.add_record(self._record(self.ttl_s)):
            await self._read()
        return self.is_held

    async def extend(self) -> bool:
        """Hold it for another `ttl_s`. False where it was lost."""
        if self._held is not None:
            longer = self._record(self.ttl_s)
            if await self._records.swap_record(self._held, longer):
                await self._read()
            else:
                self._held = None
        return self.is_held

    async def release(self) -> None:
        """Let another process take it, unless one has it already."""
        held, self._held = self._held, None
        if held is not None:
            await self._records.swap_record(held, self._record(0.0))

    def _record(self, ttl_s: float) -> Record:
        return Record(KIND, self._name, "", self._value, self._wall_clock() + ttl_s)

    async def _read(self) -> None:
        record = await self._records.get_record(KIND, self._name)
        self._held = record if record is not None and record.value == self._value else None
