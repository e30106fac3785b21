"""The tokens of the Redis store.

A token and its client are in different hash slots, so reading one takes two steps: the
token, then the epoch of its client. That is as good as one: whatever is revoked before
the first step, or between them, is seen by the second.
"""

from __future__ import annotations

from gateway.oauth.models import AccessToken, ClientChange, ClientGoneError, TokenChange
from gateway.store.link import Connection
from gateway.store.redis import scripts
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.link import call_script
from gateway.store.redis.values import (
    StoredToken,
    as_limit,
    as_stored_token,
    as_token,
    new_epoch,
    token_value,
    ttl_ms,
)

FORGET_BATCH = 100
REVOKED = b"-"
"""Begins the value of a token that is revoked, though not all processes may have been notified
yet."""


class RedisTokens:
    """Implements `gateway.oauth.models.TokenStore`."""

    def __init__(self, calls: RedisCalls) -> None:
        self._calls = calls

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        client = self._calls.keys.client(token.client_id)
        now = self._calls.wall_clock()

        async def work(redis: Connection) -> None:
            kept, epoch = await redis.hmget(client, "generation", "epoch")
            if kept is None or int(kept) != generation:
                raise ClientGoneError
            # In the epoch just read: if it ends meanwhile, so does the token.
            pipeline = redis.pipeline(transaction=False)
            self.queue_token(pipeline, token, epoch.decode(), now)
            await pipeline.execute()

        await self._calls.run("add_token", work)

    def queue_token(self, pipeline: Connection, token: AccessToken, epoch: str, now: float) -> None:
        """Have a pipeline keep a token of an epoch."""
        ttl = ttl_ms(token.expires_at, now)
        pipeline.set(self._calls.keys.token(token.digest), token_value(token, epoch), px=ttl)
        pipeline.eval(
            scripts.INDEX_TOKEN.text, 1, self._calls.keys.tokens_of(token.client_id, epoch),
            token.digest, token.expires_at, now, ttl, FORGET_BATCH,
        )  # fmt: skip

    async def get_token(self, digest: bytes) -> AccessToken | None:
        async def work(redis: Connection) -> AccessToken | None:
            value = await redis.get(self._calls.keys.token(digest))
            if value is None or value.startswith(REVOKED):
                return None
            return await self._join(redis, digest, as_stored_token(value))

        return await self._calls.run("get_token", work)

    async def _join(
        self, redis: Connection, digest: bytes, stored: StoredToken
    ) -> AccessToken | None:
        client_id, epoch, *_ = stored
        current, name, limit = await redis.hmget(
            self._calls.keys.client(client_id), "epoch", "name", "rate_limit"
        )
        if current is None or name is None or current.decode() != epoch:
            return None
        return as_token(digest, stored, name.decode(), as_limit(limit))

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        root, name = self._calls.keys.root, self._calls.keys.token(digest)
        arguments = (digest, self._calls.wall_clock())
        # In a Cluster, two steps, of which the second one can be retried.
        is_one_step = not self._calls.link.is_cluster

        async def work(redis: Connection) -> AccessToken | None:
            if is_one_step:
                value = await call_script(redis, scripts.REVOKE_TOKEN, [root, name], *arguments)
            else:
                value = await call_script(redis, scripts.MARK_TOKEN, [name])
            if value is None:
                return None
            stored = as_stored_token(value)
            token = await self._join(redis, digest, stored)
            if not is_one_step:
                await call_script(redis, scripts.ANNOUNCE_TOKEN, [root], *arguments)
                # All processes are notified: from here on there is nothing to retry.
                await redis.delete(name)
            client_id, epoch, *_ = stored
            await redis.zrem(self._calls.keys.tokens_of(client_id, epoch), digest)
            return token

        with self._calls.announced(TokenChange(digest)):
            token = await self._calls.run("revoke_token", work)
        if token is not None:
            self._calls.on_change(TokenChange(digest))
        return token

    async def revoke_client_tokens(self, client_id: str) -> int:
        epoch = await self._calls.change(
            "revoke_client_tokens",
            scripts.REVOKE_CLIENT_TOKENS,
            ClientChange(client_id),
            *(client_id, new_epoch(), self._calls.wall_clock()),
        )
        return await self.count_ended(client_id, epoch)

    async def count_ended(self, client_id: str, epoch: bytes | None) -> int:
        """How many tokens lived in an epoch that has ended. They are gone already, and their
        keys end by themselves."""
        if epoch is None:
            return 0
        index = self._calls.keys.tokens_of(client_id, epoch.decode())
        now = self._calls.wall_clock()

        async def work(redis: Connection) -> int:
            count: int = await redis.zcount(index, f"({now!r}", "+inf")
            await redis.unlink(index)
            return count

        return await self._calls.run("count_tokens", work)
