"""The whole content of the PostgreSQL store, read and written in batches."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.oauth.models import AccessToken, Client, Record
from gateway.store.postgresql.calls import PostgresCalls
from gateway.store.postgresql.clients import INSERT_CLIENT
from gateway.store.postgresql.records import insert_records
from gateway.store.postgresql.tokens import SELECT_TOKENS, token_values
from gateway.store.rows import (
    CLIENT_COLUMNS,
    RECORD_COLUMNS,
    TOKEN_COLUMNS,
    as_token,
    client_values,
    new_epoch,
)


class PostgresContent:
    """Implements `gateway.store.transfer.StoreContent`."""

    def __init__(self, calls: PostgresCalls) -> None:
        self._calls = calls

    async def scan_tokens(
        self, cursor: str, limit: int
    ) -> tuple[str | None, Sequence[AccessToken]]:
        """See `StoreContent`. The cursor is the last digest."""
        query = f"{SELECT_TOKENS} WHERE digest > $1 ORDER BY digest LIMIT $2"
        rows = await self._calls.rows("scan_tokens", query, bytes.fromhex(cursor), limit)
        tokens = [as_token(row) for row in rows]
        return (tokens[-1].digest.hex() if len(tokens) == limit else None), tokens

    async def scan_records(self, cursor: str, limit: int) -> tuple[str | None, Sequence[Record]]:
        """See `StoreContent`. The cursor is the last kind and key."""
        kind, key = msgspec.json.decode(cursor) if cursor else ("", "")
        query = (
            f"SELECT {RECORD_COLUMNS} FROM gateway.records WHERE (kind, key) > ($1, $2)"
            " AND (expires_at IS NULL OR expires_at > $3) ORDER BY kind, key LIMIT $4"
        )
        rows = await self._calls.rows(
            "scan_records", query, kind, key, self._calls.wall_clock(), limit
        )
        records = [Record(*row) for row in rows]
        if len(records) < limit:
            return None, records
        return msgspec.json.encode((records[-1].kind, records[-1].key)).decode(), records

    async def import_clients(self, clients: Sequence[Client]) -> None:
        # Not the epoch: what tokens the namesake has stay valid.
        updates = ", ".join(
            f"{column} = excluded.{column}" for column in CLIENT_COLUMNS.split(", ")[1:]
        )
        statement = f"{INSERT_CLIENT} ON CONFLICT (client_id) DO UPDATE SET {updates}"
        rows = [(*client_values(client, client.generation), new_epoch()) for client in clients]
        await self._calls.run("import_clients", lambda db: db.executemany(statement, rows))

    async def import_tokens(self, tokens: Sequence[AccessToken]) -> None:
        columns = TOKEN_COLUMNS.split(", ")
        updates = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
        statement = (
            f"INSERT INTO gateway.tokens ({TOKEN_COLUMNS})"
            " SELECT $1, client_id, $3, $4, $5, $6, epoch FROM gateway.clients"
            f" WHERE client_id = $2 ON CONFLICT (digest) DO UPDATE SET {updates}"
        )
        rows = [token_values(token) for token in tokens]
        await self._calls.run("import_tokens", lambda db: db.executemany(statement, rows))

    async def import_records(self, records: Sequence[Record]) -> None:
        await self._calls.run("import_records", lambda db: insert_records(db, records))

    async def estimate_tokens(self) -> int:
        estimate = await self._calls.value(
            "estimate_tokens",
            "SELECT reltuples::bigint FROM pg_class WHERE oid = 'gateway.tokens'::regclass",
        )
        # -1 until the table was first analyzed.
        return max(0, int(estimate))
