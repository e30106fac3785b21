"""The tokens of the PostgreSQL store: their digests, never the tokens themselves."""

# Every statement made from parts here is made from this module's own constants.
# ruff: noqa: S608

from __future__ import annotations

from typing import Any

from gateway.oauth.models import AccessToken, ClientChange, ClientGoneError, TokenChange
from gateway.store.link import Connection
from gateway.store.postgresql.calls import PostgresCalls, count_of
from gateway.store.rows import TOKEN_COLUMNS, as_json, as_token, new_epoch

_COLUMNS = "digest, t.client_id, client_name, t.scopes, issued_at, t.expires_at, claims, rate_limit"
_IS_VALID = "c.client_id = t.client_id AND c.epoch = t.epoch"
SELECT_TOKENS = f"SELECT {_COLUMNS} FROM gateway.tokens t JOIN gateway.clients c ON {_IS_VALID}"


class PostgresTokens:
    """Implements `gateway.oauth.models.TokenStore`."""

    def __init__(self, calls: PostgresCalls) -> None:
        self._calls = calls

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        async def work(db: Connection) -> None:
            status = await db.execute(
                f"INSERT INTO gateway.tokens ({TOKEN_COLUMNS})"
                " SELECT $1, client_id, $3, $4, $5, $6, epoch FROM gateway.clients"
                " WHERE client_id = $2 AND generation = $7",
                *token_values(token), generation,
            )  # fmt: skip
            if not count_of(status):
                raise ClientGoneError

        await self._calls.run("add_token", work)

    async def get_token(self, digest: bytes) -> AccessToken | None:
        return _as_token(
            await self._calls.row("get_token", f"{SELECT_TOKENS} WHERE digest = $1", digest)
        )

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        statement = (
            "DELETE FROM gateway.tokens t USING gateway.clients c"
            f" WHERE digest = $1 AND {_IS_VALID} RETURNING {_COLUMNS}"
        )

        async def work(db: Connection) -> AccessToken | None:
            return _as_token(await db.fetchrow(statement, digest))

        return await self._calls.change("revoke_token", work, TokenChange(digest))

    async def revoke_client_tokens(self, client_id: str) -> int:
        async def work(db: Connection) -> int | None:
            epoch = await db.fetchval(
                "SELECT epoch FROM gateway.clients WHERE client_id = $1 FOR UPDATE", client_id
            )
            await db.execute(
                "UPDATE gateway.clients SET epoch = $2 WHERE client_id = $1",
                *(client_id, new_epoch()),
            )
            return None if epoch is None else int(epoch)

        epoch = await self._calls.change("revoke_client_tokens", work, ClientChange(client_id))
        return await self.count_ended(client_id, epoch)

    async def count_ended(self, client_id: str, epoch: int | None) -> int:
        """How many tokens were live in an epoch that has ended. They are removed when they
        expire."""
        if epoch is None:
            return 0
        count = await self._calls.value(
            "count_tokens",
            "SELECT count(*) FROM gateway.tokens"
            " WHERE client_id = $1 AND epoch = $2 AND expires_at > $3",
            *(client_id, epoch, self._calls.wall_clock()),
        )
        return int(count)


def token_values(token: AccessToken) -> tuple[Any, ...]:
    """The row of `TOKEN_COLUMNS`, without the epoch."""
    return (
        token.digest, token.client_id, " ".join(token.scopes), token.issued_at, token.expires_at,
        as_json(token.claims),
    )  # fmt: skip


def _as_token(row: Any) -> AccessToken | None:
    return None if row is None else as_token(row)
