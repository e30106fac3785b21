"""Calls of the PostgreSQL store, measured: what all parts of it share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, Unpack

from gateway.oauth.models import Change, ClientChange, StoreUnavailableError, TokenChange
from gateway.store.link import Connection
from gateway.store.operations import Reports, StoreOperations, has_changed
from gateway.store.postgresql.link import PostgresLink

Result = TypeVar("Result")

CHANNEL = "gateway_changes"
CHANGES_LOCK = 0x42475458
"""Held from the number of a change until it can be seen: readers of changes go by their numbers,
and must not see a later one first."""


class PostgresCalls(StoreOperations):
    """Calls of the store, measured."""

    def __init__(self, link: PostgresLink, **reports: Unpack[Reports]) -> None:
        """`reports` are those of `StoreOperations`."""
        super().__init__(**reports)
        self.link = link

    async def run(self, operation: str, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do `work` on a connection. Raises what `work` raises, and `StoreUnavailableError`."""
        return await self.measure(operation, self.link.run(work))

    async def change(
        self,
        operation: str,
        work: Callable[[Connection], Awaitable[Result]],
        change: Change,
    ) -> Result:
        """Do `work` in a transaction and announce `change` in the same, to every process, where the
        result says that there was something to change; to this process also where the call failed:
        its response may be all that was lost."""

        async def announced(connection: Connection) -> Result:
            async with connection.transaction():
                result = await work(connection)
                if has_changed(result):
                    await _announce(connection, change)
            return result

        try:
            result = await self.run(operation, announced)
        except StoreUnavailableError:
            self.on_change(change)
            raise
        if has_changed(result):
            self.on_change(change)
        return result

    async def rows(self, operation: str, query: str, *arguments: Any) -> Sequence[Any]:
        """The rows of a query."""
        return await self.run(operation, lambda connection: connection.fetch(query, *arguments))

    async def row(self, operation: str, query: str, *arguments: Any) -> Any:
        """The first row of a query, or None."""
        return await self.run(operation, lambda connection: connection.fetchrow(query, *arguments))

    async def value(self, operation: str, query: str, *arguments: Any) -> Any:
        """The first value of a query, or None."""
        return await self.run(operation, lambda connection: connection.fetchval(query, *arguments))

    async def execute(self, operation: str, statement: str, *arguments: Any) -> int:
        """Run a statement. Returns how many rows it touched."""
        status = await self.run(
            operation, lambda connection: connection.execute(statement, *arguments)
        )
        return count_of(status)

    async def close(self) -> None:
        """Close every connection."""
        await self.link.close()


async def _announce(connection: Connection, change: Change) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock($1)", CHANGES_LOCK)
    client_id = change.client_id if isinstance(change, ClientChange) else None
    digest = change.digest if isinstance(change, TokenChange) else None
    await connection.execute(
        "INSERT INTO gateway.changes (client_id, digest) VALUES ($1, $2)", client_id, digest
    )
    await connection.execute("SELECT pg_notify($1, '')", CHANNEL)


def count_of(status: str) -> int:
    """How many rows a command touched, by its status: `DELETE 3`."""
    return int(status.rpartition(" ")[2])


def is_text(text: str) -> bool:
    """Whether PostgreSQL can hold a text. What it can't hold is not there."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
