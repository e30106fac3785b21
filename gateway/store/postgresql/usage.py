"""Looking for clients in the PostgreSQL store, and what is known of their use."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.oauth.models import AccessToken, Client, ClientUsage
from gateway.store.postgresql.calls import PostgresCalls, is_text
from gateway.store.postgresql.clients import SELECT_CLIENTS
from gateway.store.postgresql.tokens import SELECT_TOKENS
from gateway.store.rows import as_client, as_token, token_position

LOOK_AT = 10_000
"""Clients that one statement looks at: there is no index to search by, and each must end in
time."""


class PostgresUsage:
    """Implements `gateway.oauth.models.UsageStore`."""

    def __init__(self, calls: PostgresCalls) -> None:
        self._calls = calls

    async def search_clients(
        self, text: str, *, after: str = "", limit: int = 100
    ) -> Sequence[Client]:
        """See `UsageStore`. `lower` knows ASCII only in the collation "C", as it is asked for."""
        last_query = (
            "SELECT max(client_id), count(*) FROM (SELECT client_id FROM gateway.clients"
            f" WHERE client_id > $1 ORDER BY client_id LIMIT {LOOK_AT}) slice"
        )
        query = (
            f"{SELECT_CLIENTS} WHERE client_id > $1 AND client_id <= $2"
            ' AND (strpos(lower(client_id), lower($3::text COLLATE "C")) > 0'
            ' OR strpos(lower(client_name), lower($3::text COLLATE "C")) > 0)'
            " ORDER BY client_id LIMIT $4"
        )
        found: list[Client] = []
        while is_text(text) and is_text(after) and len(found) < limit:
            last, count = await self._calls.row("search_clients", last_query, after)
            if not count:
                break
            rows = await self._calls.rows(
                "search_clients", query, after, last, text, limit - len(found)
            )
            found += [as_client(row) for row in rows]
            if count < LOOK_AT:
                break
            after = last
        return found

    async def record_usage(self, usages: Sequence[ClientUsage]) -> None:
        # In one order: two processes that report the same clients must not wait for each other.
        rows = sorted((one.client_id, one.last_used, one.tokens_issued) for one in usages)
        statement = (
            "INSERT INTO gateway.client_usage AS kept"
            " SELECT client_id, $2, $3 FROM gateway.clients WHERE client_id = $1"
            " ON CONFLICT (client_id) DO UPDATE SET"
            " last_used = greatest(kept.last_used, excluded.last_used),"
            " tokens_issued = kept.tokens_issued + excluded.tokens_issued"
        )
        await self._calls.run("record_usage", lambda db: db.executemany(statement, rows))

    async def client_usage(self, client_ids: Sequence[str]) -> Mapping[str, ClientUsage]:
        rows = await self._calls.rows(
            "client_usage",
            "SELECT client_id, last_used, tokens_issued FROM gateway.client_usage"
            " WHERE client_id = ANY($1::text[])",
            [client_id for client_id in client_ids if is_text(client_id)],
        )
        return {row[0]: ClientUsage(*row) for row in rows}

    async def count_tokens(self, client_id: str) -> int:
        if not is_text(client_id):
            return 0
        count = await self._calls.value(
            "count_tokens",
            "SELECT count(*) FROM gateway.tokens t JOIN gateway.clients c USING (client_id, epoch)"
            " WHERE client_id = $1 AND t.expires_at > $2",
            *(client_id, self._calls.wall_clock()),
        )
        return int(count)

    async def list_tokens(
        self, client_id: str, *, after: AccessToken | None = None, limit: int = 100
    ) -> Sequence[AccessToken]:
        if not is_text(client_id):
            return []
        rows = await self._calls.rows(
            "list_tokens",
            f"{SELECT_TOKENS} WHERE t.client_id = $1 AND t.expires_at > $2"
            " AND (t.expires_at, digest) > ($3, $4) ORDER BY t.expires_at, digest LIMIT $5",
            *(client_id, self._calls.wall_clock(), *token_position(after), limit),
        )
        return [as_token(row) for row in rows]
