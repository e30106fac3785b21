"""Which access tokens were issued in the name of which user, so that they end with the user."""

from __future__ import annotations

import msgspec

from gateway.oauth.models import AccessToken, Record, Store, user_owner

USER_TOKEN = "user-token"
USER = "user"
PAGE = 100


class _Standing(msgspec.Struct, frozen=True):
    disabled_at: float | None = None


class UserTokens:
    """An index of tokens by user. Each entry ends with its token."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def enter(self, username: str, token: AccessToken) -> None:
        """Enter a token, before it is kept. Raises `StoreUnavailableError`."""
        await self._store.records.add_record(
            Record(USER_TOKEN, token.digest.hex(), user_owner(username), b"", token.expires_at)
        )

    async def is_orphan(self, username: str, token: AccessToken) -> bool:
        """Whether the user is gone or disabled, now that a token was kept; then it is revoked.

        To delete or disable a user changes the user first and then revokes what the index holds. So
        a token that was not in the index yet finds no such user here. Raises
        `StoreUnavailableError`.
        """
        user = await self._store.records.get_record(USER, username)
        if user and msgspec.json.decode(user.value, type=_Standing).disabled_at is None:
            return False
        await self._store.tokens.revoke_token(token.digest)
        await self._store.records.delete_record(USER_TOKEN, token.digest.hex())
        return True

    async def revoke_all(self, username: str) -> int:
        """Revoke the tokens of a user. Returns how many were live. Raises
        `StoreUnavailableError`."""
        revoked = 0
        while entries := await self._store.records.list_records(
            USER_TOKEN, limit=PAGE, owner=user_owner(username)
        ):
            for entry in entries:
                token = await self._store.tokens.revoke_token(bytes.fromhex(entry.key))
                revoked += token is not None
                await self._store.records.delete_record(USER_TOKEN, entry.key)
        return revoked
