"""The whole content of the SQLite store, read and written in batches."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from gateway.oauth.models import AccessToken, Client, Record
from gateway.store.rows import (
    CLIENT_COLUMNS,
    RECORD_COLUMNS,
    TOKEN_COLUMNS,
    as_json,
    as_token,
    client_values,
    new_epoch,
)
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.statements import SELECT_TOKENS, insert_record


class SqliteContent:
    """Implements `gateway.store.transfer.StoreContent`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def scan_tokens(
        self, cursor: str, limit: int
    ) -> tuple[str | None, Sequence[AccessToken]]:
        """See `StoreContent`. The cursor is the last digest."""
        query = f"{SELECT_TOKENS} WHERE digest > ? ORDER BY digest LIMIT ?"
        values = (bytes.fromhex(cursor), limit)
        tokens = await self._file.read(
            "scan_tokens", lambda db: [as_token(row) for row in db.execute(query, values)]
        )
        return (tokens[-1].digest.hex() if len(tokens) == limit else None), tokens

    async def scan_records(self, cursor: str, limit: int) -> tuple[str | None, Sequence[Record]]:
        """See `StoreContent`. The cursor is the last kind and key."""
        kind, key = msgspec.json.decode(cursor) if cursor else ("", "")
        query = (
            f"SELECT {RECORD_COLUMNS} FROM records WHERE (kind, key) > (?, ?)"
            " AND (expires_at IS NULL OR expires_at > ?) ORDER BY kind, key LIMIT ?"
        )
        values = (kind, key, self._file.wall_clock(), limit)
        records = await self._file.read(
            "scan_records", lambda db: [Record(*row) for row in db.execute(query, values)]
        )
        if len(records) < limit:
            return None, records
        return msgspec.json.encode((records[-1].kind, records[-1].key)).decode(), records

    async def import_clients(self, clients: Sequence[Client]) -> None:
        columns = CLIENT_COLUMNS.split(", ")
        rows = [(*client_values(client, client.generation), new_epoch()) for client in clients]
        # Not REPLACE, which deletes the old row, and so its tokens.
        updates = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
        statement = (
            f"INSERT INTO clients ({CLIENT_COLUMNS}, epoch)"
            f" VALUES ({', '.join('?' * len(columns))}, ?)"
            f" ON CONFLICT (client_id) DO UPDATE SET {updates}"
        )
        await self._file.write(
            "import_clients", lambda db: _run_many(db, statement, rows), is_durable=True
        )

    async def import_tokens(self, tokens: Sequence[AccessToken]) -> None:
        statement = (
            f"REPLACE INTO tokens ({TOKEN_COLUMNS})"
            " SELECT ?, ?, ?, ?, ?, ?, epoch FROM clients WHERE client_id = ?"
        )
        rows = [
            (token.digest, token.client_id, " ".join(token.scopes), token.issued_at,
             token.expires_at, as_json(token.claims), token.client_id)
            for token in tokens
        ]  # fmt: skip
        await self._file.write(
            "import_tokens", lambda db: _run_many(db, statement, rows), is_durable=True
        )

    async def import_records(self, records: Sequence[Record]) -> None:
        def work(db: sqlite3.Connection) -> None:
            for record in records:
                insert_record(db, record, record.version)

        await self._file.write("import_records", work, is_durable=True)

    async def estimate_tokens(self) -> int:
        (count,) = await self._file.read(
            "estimate_tokens", lambda db: db.execute("SELECT count(*) FROM tokens").fetchone()
        )
        return int(count)


def _run_many(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    db.executemany(statement, rows)
