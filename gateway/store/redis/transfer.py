"""The whole content of the Redis store, read and written in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from gateway.oauth.models import AccessToken, Client, Record
from gateway.store.link import Connection
from gateway.store.redis import scripts
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.records import RECORD_FIELDS
from gateway.store.redis.tokens import REVOKED, RedisTokens
from gateway.store.redis.values import (
    as_limit,
    as_record,
    as_stored_token,
    as_token,
    client_fields,
    end_text,
    new_epoch,
    record_arguments,
)

Item = TypeVar("Item")

MAX_A_CALL = 200
"""Items per call, so that each call completes in time."""


class RedisContent:
    """Implements `gateway.store.transfer.StoreContent`.

    A cursor is the number of a node, in the order of their addresses, and Redis' own
    cursor there (SCAN): it holds as long as the nodes of a Cluster are the same ones.
    """

    def __init__(self, calls: RedisCalls, tokens: RedisTokens) -> None:
        self._calls = calls
        self._tokens = tokens

    async def scan_tokens(
        self, cursor: str, limit: int
    ) -> tuple[str | None, Sequence[AccessToken]]:
        async def work(redis: Connection) -> tuple[str | None, Sequence[AccessToken]]:
            following, names = await _scan(
                redis,
                cursor,
                f"{self._calls.keys.token_prefix}*",
                limit,
                self._calls.link.is_cluster,
            )
            pipeline = redis.pipeline(transaction=False)
            for name in names:
                pipeline.get(name)
            values = await pipeline.execute() if names else []
            digests = [bytes.fromhex(name[-64:].decode()) for name in names]
            stored = {
                digest: as_stored_token(value)
                for digest, value in zip(digests, values, strict=True)
                if value is not None and not value.startswith(REVOKED)
            }
            clients = await self._read_clients(redis, {token[0] for token in stored.values()})
            return following, [
                as_token(digest, token, name.decode(), as_limit(limit_text))
                for digest, token in stored.items()
                for epoch, name, limit_text in [clients[token[0]]]
                if epoch is not None and epoch.decode() == token[1]
            ]

        return await self._calls.run("scan_tokens", work)

    async def _read_clients(
        self, redis: Connection, client_ids: set[str]
    ) -> dict[str, list[bytes]]:
        pipeline = redis.pipeline(transaction=False)
        for client_id in client_ids:
            pipeline.hmget(self._calls.keys.client(client_id), "epoch", "name", "rate_limit")
        fields = await pipeline.execute() if client_ids else []
        return dict(zip(client_ids, fields, strict=True))

    async def scan_records(self, cursor: str, limit: int) -> tuple[str | None, Sequence[Record]]:
        front = self._calls.keys.record("", "")[:-1]
        now = self._calls.wall_clock()

        async def work(redis: Connection) -> tuple[str | None, Sequence[Record]]:
            following, names = await _scan(
                redis, cursor, f"{front}*", limit, self._calls.link.is_cluster
            )
            pipeline = redis.pipeline(transaction=False)
            for name in names:
                pipeline.hmget(name, *RECORD_FIELDS)
            values = await pipeline.execute() if names else []
            records = []
            for name, fields in zip(names, values, strict=True):
                kind, _, key = name.decode()[len(front) :].partition(":")
                if fields[0] is not None:
                    records.append(as_record(kind, key, fields))
            return following, [
                record for record in records if record.expires_at is None or record.expires_at > now
            ]

        return await self._calls.run("scan_records", work)

    async def import_clients(self, clients: Sequence[Client]) -> None:
        def queue(pipeline: Connection, client: Client) -> None:
            fields = client_fields(client)
            pipeline.eval(
                scripts.IMPORT_CLIENT.text, 1, self._calls.keys.root,
                client.client_id, end_text(client.expires_at), new_epoch(), *fields,
            )  # fmt: skip

        await self._queue_all("import_clients", clients, queue)

    async def import_tokens(self, tokens: Sequence[AccessToken]) -> None:
        now = self._calls.wall_clock()

        async def work(redis: Connection) -> None:
            clients = await self._read_clients(redis, {token.client_id for token in tokens})
            pipeline = redis.pipeline(transaction=False)
            for token in tokens:
                epoch = clients[token.client_id][0]
                if epoch is not None:
                    self._tokens.queue_token(pipeline, token, epoch.decode(), now)
            await pipeline.execute()

        if tokens:
            await self._calls.run("import_tokens", work)

    async def import_records(self, records: Sequence[Record]) -> None:
        now = self._calls.wall_clock()

        def queue(pipeline: Connection, record: Record) -> None:
            pipeline.eval(
                scripts.IMPORT_RECORD.text, 1, self._calls.keys.root,
                now, record.kind, record.key, *record_arguments(record, now),
            )  # fmt: skip

        await self._queue_all("import_records", records, queue)

    async def _queue_all(
        self,
        operation: str,
        items: Sequence[Item],
        queue: Callable[[Connection, Item], None],
    ) -> None:
        for first in range(0, len(items), MAX_A_CALL):

            async def work(redis: Connection, first: int = first) -> None:
                pipeline = redis.pipeline(transaction=False)
                for item in items[first : first + MAX_A_CALL]:
                    queue(pipeline, item)
                await pipeline.execute()

            await self._calls.run(operation, work)

    async def estimate_tokens(self) -> int:
        """See `StoreContent`. All keys, of which most are tokens."""

        async def work(redis: Connection) -> int:
            count: int = await redis.dbsize()
            return count

        return await self._calls.run("estimate_tokens", work)


async def _scan(
    redis: Connection, cursor: str, pattern: str, count: int, is_cluster: bool
) -> tuple[str | None, list[bytes]]:
    number, _, position = (cursor or "0:0").partition(":")
    at, nodes = int(number), []
    if is_cluster:
        nodes = sorted(redis.get_primaries(), key=lambda node: (node.host, node.port))
    where = {"target_nodes": nodes[at]} if nodes else {}
    following, names = await redis.scan(int(position), match=pattern, count=count, **where)
    if isinstance(following, dict):
        (following,) = following.values()
    if following:
        return f"{at}:{following}", names
    return (f"{at + 1}:0" if at + 1 < len(nodes) else None), names
