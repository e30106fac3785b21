"""The clients of the SQLite store.

Each has the *epoch* of its tokens, a random number. A token is valid only in the epoch that it was
issued in, so replacing that number revokes all tokens of the client in one step, however many there
are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from gateway.oauth.models import (
    Client,
    ClientCensus,
    ClientChange,
    ClientExistsError,
    client_owner,
)
from gateway.rate_limit import RateLimit
from gateway.store.rows import as_client, as_json, as_limit_text
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.records import SqliteRecords
from gateway.store.sqlite.statements import (
    SELECT_CLIENTS,
    begin_epoch,
    find_client,
    insert_client,
)
from gateway.store.sqlite.tokens import SqliteTokens


class SqliteClients:
    """Implements `gateway.oauth.models.ClientStore`. Writes are durable."""

    def __init__(self, file: SqliteFile, tokens: SqliteTokens, records: SqliteRecords) -> None:
        self._file = file
        self._tokens = tokens
        self._records = records

    async def get_client(self, client_id: str) -> Client | None:
        return await self._file.read("get_client", lambda db: find_client(db, client_id))

    async def add_client(self, client: Client) -> None:
        def work(db: sqlite3.Connection) -> None:
            try:
                insert_client(db, client, client.generation)
            except sqlite3.IntegrityError:
                raise ClientExistsError from None

        await self._file.write("add_client", work, is_durable=True)

    async def replace_client(self, client: Client) -> int:
        def work(db: sqlite3.Connection) -> int | None:
            old = find_client(db, client.client_id)
            epoch = _remove(db, client.client_id) if old else None
            insert_client(db, client, old.generation + 1 if old else client.generation)
            return epoch

        await self._records.remove_most_of_owner(client_owner(client.client_id))
        epoch = await self._file.change("replace_client", work, ClientChange(client.client_id))
        return await self._tokens.count_ended(client.client_id, epoch)

    async def delete_client(self, client_id: str) -> int | None:
        def work(db: sqlite3.Connection) -> int | None:
            if find_client(db, client_id) is None:
                return None
            return _remove(db, client_id)

        if await self.get_client(client_id) is None:
            return None
        await self._records.remove_most_of_owner(client_owner(client_id))
        epoch = await self._file.change("delete_client", work, ClientChange(client_id))
        return None if epoch is None else await self._tokens.count_ended(client_id, epoch)

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        query = f"{SELECT_CLIENTS} WHERE client_id > ? ORDER BY client_id LIMIT ?"
        return await self._file.read(
            "list_clients", lambda db: [as_client(row) for row in db.execute(query, (after, limit))]
        )

    async def update_client(self, client: Client, *, generation: int) -> Client | None:
        values = (
            client.client_name, " ".join(client.scopes), as_json(client.metadata),
            client.expires_at, client.client_id, generation,
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> Client | None:
            updated = db.execute(
                "UPDATE clients SET client_name = ?, scopes = ?, metadata = ?, expires_at = ?,"
                " generation = generation + 1 WHERE client_id = ? AND generation = ?",
                values,
            )
            return find_client(db, client.client_id) if updated.rowcount else None

        return await self._file.change("update_client", work, ClientChange(client.client_id))

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        def work(db: sqlite3.Connection) -> Client | None:
            db.execute(
                "UPDATE clients SET expires_at = ? WHERE client_id = ?", (expires_at, client_id)
            )
            return find_client(db, client_id)

        return await self._file.write("set_client_expiry", work, is_durable=True)

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        def work(db: sqlite3.Connection) -> Client | None:
            db.execute(
                "UPDATE clients SET secret_hash = ?, generation = generation + 1"
                " WHERE client_id = ?",
                (secret_hash, client_id),
            )
            return find_client(db, client_id)

        return await self._file.change("set_client_secret", work, ClientChange(client_id))

    async def set_client_rate_limit(
        self, client_id: str, rate_limit: RateLimit | None
    ) -> Client | None:
        def work(db: sqlite3.Connection) -> Client | None:
            db.execute(
                "UPDATE clients SET rate_limit = ? WHERE client_id = ?",
                (as_limit_text(rate_limit), client_id),
            )
            return find_client(db, client_id)

        return await self._file.change("set_client_rate_limit", work, ClientChange(client_id))

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        query = (
            "SELECT (SELECT count(*) FROM clients),"
            " (SELECT count(*) FROM clients WHERE expires_at <= :now),"
            " (SELECT count(*) FROM clients WHERE expires_at > :now AND expires_at < :soon)"
        )
        values = {"now": now, "soon": expiring_before}
        return await self._file.read(
            "census", lambda db: ClientCensus(*db.execute(query, values).fetchone())
        )

    async def expiring_clients(
        self, *, now: float, before: float, limit: int = 20
    ) -> Sequence[Client]:
        query = (
            f"{SELECT_CLIENTS} WHERE expires_at > ? AND expires_at < ? ORDER BY expires_at LIMIT ?"
        )
        return await self._file.read(
            "expiring_clients",
            lambda db: [as_client(row) for row in db.execute(query, (now, before, limit))],
        )


def _remove(db: sqlite3.Connection, client_id: str) -> int | None:
    """Remove a client. Returns the epoch that has ended."""
    epoch = begin_epoch(db, client_id)
    db.execute("DELETE FROM clients WHERE client_id = ?", (client_id,))
    return epoch
