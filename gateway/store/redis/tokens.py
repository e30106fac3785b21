"""The tokens of the Redis store.

A token and its client are in different hash slots, so reading one takes two steps: the
token, then the epoch of its client. That is as good as one: whatever is revoked before
the first step, or between them, is seen by the second.
"""

from __future__ import annotations

from gateway.oauth.models import AccessToken, ClientGoneError, TokenChange
from gateway.store.redis import scripts
from gateway.store.redis.clients import RedisClients
from gateway.store.redis.link import Connection, call_script
from gateway.store.redis.values import (
    StoredToken,
    as_limit,
    as_stored_token,
    as_token,
    token_value,
    ttl_ms,
)

REVOKED = b"-"
"""Begins the value of a token that is revoked, though not all processes may have been notified
yet."""


class RedisTokens(RedisClients):
    """Implements `gateway.oauth.models.TokenStore`."""

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        client = self._keys.client(token.client_id)
        now = self._wall_clock()

        async def work(redis: Connection) -> None:
            kept, epoch = await redis.hmget(client, "generation", "epoch")
            if kept is None or int(kept) != generation:
                raise ClientGoneError
            # In the epoch just read: if it ends meanwhile, so does the token.
            pipeline = redis.pipeline(transaction=False)
            self._queue_token(pipeline, token, epoch.decode(), now)
            await pipeline.execute()

        await self._run("add_token", work)

    def _queue_token(
        self, pipeline: Connection, token: AccessToken, epoch: str, now: float
    ) -> None:
        ttl = ttl_ms(token.expires_at, now)
        pipeline.set(self._keys.token(token.digest), token_value(token, epoch), px=ttl)
        pipeline.eval(
            scripts.INDEX_TOKEN.text, 1, self._keys.tokens_of(token.client_id, epoch),
            token.digest, token.expires_at, now, ttl,
        )  # fmt: skip

    async def get_token(self, digest: bytes) -> AccessToken | None:
        async def work(redis: Connection) -> AccessToken | None:
            value = await redis.get(self._keys.token(digest))
            if value is None or value.startswith(REVOKED):
                return None
            return await self._join(redis, digest, as_stored_token(value))

        return await self._run("get_token", work)

    async def _join(
        self, redis: Connection, digest: bytes, stored: StoredToken
    ) -> AccessToken | None:
        client_id, epoch, *_ = stored
        current, name, limit = await redis.hmget(
            self._keys.client(client_id), "epoch", "name", "rate_limit"
        )
        if current is None or name is None or current.decode() != epoch:
            return None
        return as_token(digest, stored, name.decode(), as_limit(limit))

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        name = self._keys.token(digest)

        async def work(redis: Connection) -> AccessToken | None:
            value = await call_script(redis, scripts.MARK_TOKEN, [name])
            if value is None:
                return None
            stored = as_stored_token(value)
            token = await self._join(redis, digest, stored)
            arguments = (digest, self._wall_clock())
            await call_script(redis, scripts.ANNOUNCE_TOKEN, [self._keys.root], *arguments)
            # All processes are notified: from here on there is nothing to retry.
            await redis.delete(name)
            client_id, epoch, *_ = stored
            await redis.zrem(self._keys.tokens_of(client_id, epoch), digest)
            return token

        with self._announced(TokenChange(digest)):
            token = await self._run("revoke_token", work)
        if token is not None:
            self._on_change(TokenChange(digest))
        return token
