"""The tokens of the SQLite store: their digests, never the tokens themselves."""

from __future__ import annotations

import sqlite3

from gateway.oauth.models import AccessToken, ClientChange, ClientGoneError, TokenChange
from gateway.store.rows import TOKEN_COLUMNS, as_json
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.statements import begin_epoch, find_token


class SqliteTokens:
    """Implements `gateway.oauth.models.TokenStore`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        values = (
            token.digest, token.client_id, " ".join(token.scopes),
            token.issued_at, token.expires_at, as_json(token.claims), token.client_id, generation,
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> None:
            added = db.execute(
                f"INSERT INTO tokens ({TOKEN_COLUMNS})"  # noqa: S608 - names of ours
                " SELECT ?, ?, ?, ?, ?, ?, epoch FROM clients"
                " WHERE client_id = ? AND generation = ?",
                values,
            )
            if not added.rowcount:
                raise ClientGoneError

        await self._file.write("add_token", work, is_durable=False)

    async def get_token(self, digest: bytes) -> AccessToken | None:
        return await self._file.read("get_token", lambda db: find_token(db, digest))

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        def work(db: sqlite3.Connection) -> AccessToken | None:
            token = find_token(db, digest)
            if token is not None:
                db.execute("DELETE FROM tokens WHERE digest = ?", (digest,))
            return token

        return await self._file.change("revoke_token", work, TokenChange(digest))

    async def revoke_client_tokens(self, client_id: str) -> int:
        epoch = await self._file.change(
            "revoke_client_tokens",
            lambda db: begin_epoch(db, client_id),
            ClientChange(client_id),
        )
        return await self.count_ended(client_id, epoch)

    async def count_ended(self, client_id: str, epoch: int | None) -> int:
        """How many tokens were live in an epoch that has ended. They are removed when they
        expire."""
        values = (client_id, epoch, self._file.wall_clock())
        (count,) = await self._file.read(
            "count_tokens",
            lambda db: db.execute(
                "SELECT count(*) FROM tokens WHERE client_id = ? AND epoch = ? AND expires_at > ?",
                values,
            ).fetchone(),
        )
        return int(count)
