"""Looking for clients in the SQLite store, and what is known of their use."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from gateway.oauth.models import AccessToken, Client, ClientUsage
from gateway.store.rows import as_client, as_token, token_position
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.statements import SELECT_CLIENTS, SELECT_TOKENS

LOOK_AT = 10_000
"""Clients that one read looks at: some ten milliseconds."""


class SqliteUsage:
    """Implements `gateway.oauth.models.UsageStore`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def search_clients(
        self, text: str, *, after: str = "", limit: int = 100
    ) -> Sequence[Client]:
        """See `UsageStore`. SQLite's `lower` knows ASCII only, as it is asked for."""
        # In slices, each a read of its own: there is no index to search by, and other reads are
        # not to wait for a search through very many clients.
        slice_query = "SELECT client_id FROM clients WHERE client_id > ? ORDER BY client_id LIMIT ?"
        query = (
            f"{SELECT_CLIENTS} WHERE client_id > :after AND client_id <= :last AND"
            " (instr(lower(client_id), lower(:text)) OR instr(lower(client_name), lower(:text)))"
            " ORDER BY client_id LIMIT :limit"
        )

        def work(db: sqlite3.Connection) -> tuple[str | None, list[Client]]:
            ids = db.execute(slice_query, (after, LOOK_AT)).fetchall()
            if not ids:
                return None, []
            (last,) = ids[-1]
            values = {
                "after": after, "last": last, "text": text, "limit": limit - len(found)
            }  # fmt: skip
            clients = [as_client(row) for row in db.execute(query, values)]
            return (last if len(ids) == LOOK_AT else None), clients

        found: list[Client] = []
        while len(found) < limit:
            following, clients = await self._file.read("search_clients", work)
            found += clients
            if following is None:
                break
            after = following
        return found

    async def record_usage(self, usages: Sequence[ClientUsage]) -> None:
        statement = (
            "INSERT INTO client_usage SELECT :id, :used, :issued"
            " WHERE EXISTS (SELECT 1 FROM clients WHERE client_id = :id)"
            " ON CONFLICT (client_id) DO UPDATE SET"
            " last_used = nullif(max(coalesce(last_used, 0), coalesce(excluded.last_used, 0)), 0),"
            " tokens_issued = tokens_issued + excluded.tokens_issued"
        )
        rows = [
            {"id": usage.client_id, "used": usage.last_used, "issued": usage.tokens_issued}
            for usage in usages
        ]

        def work(db: sqlite3.Connection) -> None:
            db.executemany(statement, rows)

        await self._file.write("record_usage", work, is_durable=False)

    async def client_usage(self, client_ids: Sequence[str]) -> Mapping[str, ClientUsage]:
        query = "SELECT client_id, last_used, tokens_issued FROM client_usage WHERE client_id = ?"

        def work(db: sqlite3.Connection) -> dict[str, ClientUsage]:
            found = {}
            for client_id in client_ids:
                for row in db.execute(query, (client_id,)):
                    found[client_id] = ClientUsage(*row)
            return found

        return await self._file.read("client_usage", work)

    async def count_tokens(self, client_id: str) -> int:
        values = (client_id, self._file.wall_clock())
        (count,) = await self._file.read(
            "count_tokens",
            lambda db: db.execute(
                "SELECT count(*) FROM tokens t JOIN clients c USING (client_id, epoch)"
                " WHERE t.client_id = ? AND t.expires_at > ?",
                values,
            ).fetchone(),
        )
        return int(count)

    async def list_tokens(
        self, client_id: str, *, after: AccessToken | None = None, limit: int = 100
    ) -> Sequence[AccessToken]:
        query = (
            f"{SELECT_TOKENS} WHERE t.client_id = ? AND t.expires_at > ?"
            " AND (t.expires_at, digest) > (?, ?) ORDER BY t.expires_at, digest LIMIT ?"
        )
        values = (client_id, self._file.wall_clock(), *token_position(after), limit)
        return await self._file.read(
            "list_tokens", lambda db: [as_token(row) for row in db.execute(query, values)]
        )
