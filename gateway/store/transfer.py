"""Everything from one store into another: `gateway migrate`.

Goes batch by batch, and keeps its place in the target, so that a run that was cut off is
taken up where it was. What is copied keeps its generation and version, and copying it
twice does no harm.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from gateway.oauth.models import AccessToken, Client, Clock, Record, Store, StoreError

Part = Literal["clients", "tokens", "records"]
PARTS: tuple[Part, ...] = ("clients", "tokens", "records")
Item = Client | AccessToken | Record
Page = tuple[str | None, Sequence[Item]]

BATCH = 1000
MARGIN_S = 300.0
"""What ends sooner is copied but not counted: it may end while it is being counted."""
KIND = "migration"
_MASK = (1 << 256) - 1


class StoreContent(Protocol):
    """The whole content of a store, read and written in batches. Every method may raise
    `StoreUnavailableError`."""

    async def scan_tokens(
        self, cursor: str, limit: int
    ) -> tuple[str | None, Sequence[AccessToken]]:
        """Some tokens (about `limit`, or none), and the cursor to go on with, None at the end.
        The empty cursor begins. Each token comes at least once."""

    async def scan_records(self, cursor: str, limit: int) -> tuple[str | None, Sequence[Record]]:
        """The same for live records of every kind."""

    async def import_clients(self, clients: Sequence[Client]) -> None:
        """Keep clients as they are, in place of namesakes, whose tokens stay valid."""

    async def import_tokens(self, tokens: Sequence[AccessToken]) -> None:
        """Keep tokens as they are, but those whose client is not there."""

    async def import_records(self, records: Sequence[Record]) -> None:
        """Keep records as they are, in place of namesakes."""

    async def estimate_tokens(self) -> int:
        """About how many tokens there are."""


class TransferableStore(Store, Protocol):
    """A store whose whole content can be read and written."""

    @property
    def content(self) -> StoreContent: ...


@dataclass(frozen=True, slots=True)
class Digest:
    """Digest of a part of a store, independent of its order."""

    count: int
    digest: str
    """The sum of the SHA-256 of all, in hexadecimal digits."""


class TransferError(StoreError):
    """The content can't be copied, or the copy is not like the original."""


Progress = Callable[[str, int], None]
"""Called with the part and how many of its items are done."""


class Transfer:
    """From one store into another."""

    def __init__(
        self,
        source: TransferableStore,
        target: TransferableStore,
        *,
        name: str,
        progress: Progress = lambda part, done: None,
        wall_clock: Clock = time.time,
    ) -> None:
        """`name` distinguishes this transfer from others into the same target."""
        self._source = source
        self._target = target
        self._name = name
        self._progress = progress
        self._wall_clock = wall_clock

    async def is_begun(self) -> bool:
        """Whether an earlier run was cut off, and will be taken up."""
        return await self._target.records.get_record(KIND, self._name) is not None

    async def copy(self) -> None:
        """Copy everything, or the rest of it. Raises `TransferError` where the target holds
        something else, and `StoreUnavailableError`."""
        place = await self._target.records.get_record(KIND, self._name)
        if place is None and await self._target.clients.list_clients(limit=1):
            raise TransferError("the target holds clients already, expected an empty store")
        part, cursor, done = msgspec.json.decode(place.value) if place else (PARTS[0], "", 0)
        for current in PARTS[PARTS.index(part) :]:
            if current != part:
                cursor, done = "", 0
            await self._remember(current, cursor, done)
            async for next_cursor, items in self._pages(self._source, current, cursor):
                await self._keep(current, items)
                done += len(items)
                self._progress(current, done)
                if next_cursor is not None:
                    await self._remember(current, next_cursor, done)

    async def _keep(self, part: Part, items: Sequence[Any]) -> None:
        if part == "clients":
            await self._target.content.import_clients(items)
        elif part == "tokens":
            await self._target.content.import_tokens(items)
        else:
            await self._target.content.import_records(items)

    async def _remember(self, part: Part, cursor: str, done: int) -> None:
        value = msgspec.json.encode((part, cursor, done))
        await self._target.records.put_record(Record(KIND, self._name, "", value, None))

    async def verify(self) -> dict[Part, Digest]:
        """Compare both stores by count and digest; then the place is forgotten.

        Raises `TransferError` where they differ, and `StoreUnavailableError`.
        """
        counted_from = self._wall_clock() + MARGIN_S
        found: dict[Part, Digest] = {}
        for part in PARTS:
            original = await self._digest(self._source, part, counted_from, "source")
            copy = await self._digest(self._target, part, counted_from, "target")
            if original != copy:
                raise TransferError(
                    f"{part} differ: {original.count} in the source, {copy.count} in the target. "
                    "Stop every gateway that writes to the source, then run this again"
                )
            found[part] = original
        await self._target.records.delete_record(KIND, self._name)
        return found

    async def _digest(
        self, store: TransferableStore, part: Part, counted_from: float, side: str
    ) -> Digest:
        total, seen = 0, set[bytes]()
        async for _, items in self._pages(store, part, ""):
            for key, text in _canonical(items, counted_from):
                if key not in seen:  # a scan may come by twice
                    seen.add(key)
                    total += int.from_bytes(hashlib.sha256(text).digest())
            self._progress(f"{part} in the {side}", len(seen))
        return Digest(len(seen), f"{total & _MASK:064x}")

    async def _pages(
        self, store: TransferableStore, part: Part, cursor: str
    ) -> AsyncIterator[Page]:
        position: str | None = cursor
        while position is not None:
            page: Page
            if part == "clients":
                clients = await store.clients.list_clients(after=position, limit=BATCH)
                page = (clients[-1].client_id if len(clients) == BATCH else None, clients)
            elif part == "tokens":
                page = await store.content.scan_tokens(position, BATCH)
            else:
                page = await store.content.scan_records(position, BATCH)
            position = page[0]
            yield page


def _canonical(items: Iterable[Item], counted_from: float) -> Iterable[tuple[bytes, bytes]]:
    """Yield a short key and all fields of each item."""
    for item in items:
        if isinstance(item, Client):
            key = item.client_id.encode()
        elif isinstance(item, AccessToken):
            if item.expires_at < counted_from:
                continue
            key = item.digest
        else:
            is_ending = item.expires_at is not None and item.expires_at < counted_from
            if item.kind == KIND or is_ending:
                continue
            key = f"{item.kind}\0{item.key}".encode()
        yield hashlib.sha256(key).digest()[:12], msgspec.json.encode(item, order="deterministic")


UNFINISHED = (
    "the store holds the beginning of a `gateway migrate` that was cut off, so clients and "
    "tokens are missing: give the same command again to finish it, or empty the store"
)


async def is_unfinished(store: Store) -> bool:
    """Whether a transfer into this store was begun and not finished. Raises
    `StoreUnavailableError`."""
    return bool(await store.records.list_records(KIND, limit=1))
