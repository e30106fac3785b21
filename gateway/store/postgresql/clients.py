"""The clients of the PostgreSQL store.

Each has the *epoch* of its tokens, a random number. A token is valid only in the epoch that it was
issued in, so replacing that number revokes all tokens of the client in one step, however many there
are.
"""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncpg.exceptions import UniqueViolationError

from gateway.oauth.models import (
    Client,
    ClientCensus,
    ClientChange,
    ClientExistsError,
    client_owner,
)
from gateway.rate_limit import RateLimit
from gateway.store.link import Connection
from gateway.store.postgresql.calls import PostgresCalls, is_text
from gateway.store.postgresql.records import PostgresRecords
from gateway.store.postgresql.tokens import PostgresTokens
from gateway.store.rows import (
    CLIENT_COLUMNS,
    as_client,
    as_json,
    as_limit_text,
    client_values,
    new_epoch,
)

SELECT_CLIENTS = f"SELECT {CLIENT_COLUMNS} FROM gateway.clients"
INSERT_CLIENT = (
    f"INSERT INTO gateway.clients ({CLIENT_COLUMNS}, epoch)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
)
_REPLACED = ", ".join(
    f"{column} = excluded.{column}"
    for column in (*CLIENT_COLUMNS.split(", ")[1:], "epoch")
    if column != "generation"
)


class PostgresClients:
    """Implements `gateway.oauth.models.ClientStore`."""

    def __init__(
        self, calls: PostgresCalls, tokens: PostgresTokens, records: PostgresRecords
    ) -> None:
        self._calls = calls
        self._tokens = tokens
        self._records = records

    async def get_client(self, client_id: str) -> Client | None:
        if not is_text(client_id):
            return None
        return _as_client(
            await self._calls.row("get_client", f"{SELECT_CLIENTS} WHERE client_id = $1", client_id)
        )

    async def add_client(self, client: Client) -> None:
        async def work(db: Connection) -> None:
            try:
                await db.execute(
                    INSERT_CLIENT, *client_values(client, client.generation), new_epoch()
                )
            except UniqueViolationError:
                raise ClientExistsError from None

        await self._calls.run("add_client", work)

    async def replace_client(self, client: Client) -> int:
        client_id = client.client_id

        async def work(db: Connection) -> int | None:
            epoch = await db.fetchval(
                "SELECT epoch FROM gateway.clients WHERE client_id = $1 FOR UPDATE", client_id
            )
            await _remove_belongings(db, client_id)
            await db.execute(
                f"{INSERT_CLIENT} ON CONFLICT (client_id) DO UPDATE SET {_REPLACED},"
                " generation = clients.generation + 1",
                *client_values(client, client.generation),
                new_epoch(),
            )
            return None if epoch is None else int(epoch)

        await self._records.remove_most_of_owner(client_owner(client_id))
        epoch = await self._calls.change("replace_client", work, ClientChange(client_id))
        return await self._tokens.count_ended(client_id, epoch)

    async def delete_client(self, client_id: str) -> int | None:
        async def work(db: Connection) -> int | None:
            epoch = await db.fetchval(
                "DELETE FROM gateway.clients WHERE client_id = $1 RETURNING epoch", client_id
            )
            if epoch is not None:
                await _remove_belongings(db, client_id)
            return None if epoch is None else int(epoch)

        if await self.get_client(client_id) is None:
            return None
        await self._records.remove_most_of_owner(client_owner(client_id))
        epoch = await self._calls.change("delete_client", work, ClientChange(client_id))
        return None if epoch is None else await self._tokens.count_ended(client_id, epoch)

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        if not is_text(after):
            return []
        query = f"{SELECT_CLIENTS} WHERE client_id > $1 ORDER BY client_id LIMIT $2"
        rows = await self._calls.rows("list_clients", query, after, limit)
        return [as_client(row) for row in rows]

    async def update_client(self, client: Client, *, generation: int) -> Client | None:
        return await self._change(
            "update_client",
            "client_name = $2, scopes = $3, metadata = $4, expires_at = $5,"
            " generation = generation + 1 WHERE client_id = $1 AND generation = $6",
            client.client_id, client.client_name, " ".join(client.scopes),
            as_json(client.metadata), client.expires_at, generation,
        )  # fmt: skip

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        statement = _update("expires_at = $2 WHERE client_id = $1")
        return _as_client(
            await self._calls.row("set_client_expiry", statement, client_id, expires_at)
        )

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        return await self._change(
            "set_client_secret",
            "secret_hash = $2, generation = generation + 1 WHERE client_id = $1",
            *(client_id, secret_hash),
        )

    async def set_client_rate_limit(
        self, client_id: str, rate_limit: RateLimit | None
    ) -> Client | None:
        return await self._change(
            "set_client_rate_limit",
            "rate_limit = $2 WHERE client_id = $1",
            *(client_id, as_limit_text(rate_limit)),
        )

    async def _change(
        self, operation: str, change: str, client_id: str, *values: Any
    ) -> Client | None:
        """Make a change (what stands behind SET), announced, and return the client as it is
        then."""

        async def work(db: Connection) -> Client | None:
            return _as_client(await db.fetchrow(_update(change), client_id, *values))

        return await self._calls.change(operation, work, ClientChange(client_id))

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        row = await self._calls.row(
            "census",
            "SELECT count(*), count(*) FILTER (WHERE expires_at <= $1),"
            " count(*) FILTER (WHERE expires_at > $1 AND expires_at < $2) FROM gateway.clients",
            *(now, expiring_before),
        )
        return ClientCensus(*row)

    async def expiring_clients(
        self, *, now: float, before: float, limit: int = 20
    ) -> Sequence[Client]:
        query = (
            f"{SELECT_CLIENTS} WHERE expires_at > $1 AND expires_at < $2"
            " ORDER BY expires_at LIMIT $3"
        )
        rows = await self._calls.rows("expiring_clients", query, now, before, limit)
        return [as_client(row) for row in rows]


def _update(change: str) -> str:
    return f"UPDATE gateway.clients SET {change} RETURNING {CLIENT_COLUMNS}"


async def _remove_belongings(db: Connection, client_id: str) -> None:
    await db.execute("DELETE FROM gateway.client_usage WHERE client_id = $1", client_id)
    await db.execute("DELETE FROM gateway.records WHERE owner = $1", client_owner(client_id))


def _as_client(row: Any) -> Client | None:
    return None if row is None else as_client(row)
