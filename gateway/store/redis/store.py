"""Clients, tokens and records in Redis, for a fleet of gateways.

Kept are digests of tokens and argon2id hashes of secrets, never either in clear. Keys end
by themselves; what changes together is changed by one script. `replicas.md` describes how
the keys are laid out and what is guaranteed when Redis is unavailable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.oauth.models import (
    Change,
    ClientChange,
    Purged,
    StoreRejectedError,
    TokenChange,
    client_owner,
)
from gateway.store.link import Connection
from gateway.store.redis import scripts
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.clients import RedisClients
from gateway.store.redis.push import watch
from gateway.store.redis.records import REMOVE_BATCH, RedisRecords
from gateway.store.redis.tokens import RedisTokens
from gateway.store.redis.transfer import RedisContent
from gateway.store.redis.usage import RedisUsage

CHANGE_RETENTION_S = 600.0
"""How long a process may be stopped and still learn exactly what it missed."""
MAX_CHANGES = 5000
"""More than these are better met by asking for everything again."""
PURGE_BATCH = 100
"""Few, because Redis does nothing else meanwhile."""


class RedisStore:
    """The store behind `redis://`. Implements `gateway.store.transfer.TransferableStore`."""

    def __init__(self, calls: RedisCalls) -> None:
        self._calls = calls
        self.tokens = RedisTokens(calls)
        self.records = RedisRecords(calls)
        self.clients = RedisClients(calls, self.tokens, self.records)
        self.usage = RedisUsage(calls)
        self.content = RedisContent(calls, self.tokens)

    async def purge(self, *, tokens_before: float, clients_before: float) -> Purged:
        """See `Store`. Tokens and records are removed by Redis itself; what is left to do is
        clients, and the indexes."""
        records = await self._purge_records(tokens_before)
        clients = await self._purge_clients(clients_before)
        await self._calls.call("purge", scripts.PURGE_CHANGES, CHANGE_RETENTION_S)
        return Purged(0, clients, records)

    async def _purge_clients(self, before: float) -> int:
        removed: int = 0
        while True:
            batch, *of_many = await self._calls.call(
                "purge",
                scripts.PURGE_CLIENTS,
                *(before, self._calls.wall_clock(), PURGE_BATCH, REMOVE_BATCH),
            )
            removed += batch
            for client_id in of_many:
                await self.records.delete_most_of_owner(client_owner(client_id.decode()))
            if batch < PURGE_BATCH and not of_many:
                return removed

    async def _purge_records(self, before: float) -> int:
        removed: int = 0
        while True:
            seen, batch = await self._calls.call(
                "purge", scripts.PURGE_RECORDS, self._calls.wall_clock(), before, PURGE_BATCH
            )
            removed += batch
            if seen < PURGE_BATCH:
                return removed

    async def changes_since(self, cursor: int | None) -> tuple[int, Sequence[Change] | None]:
        newest, *rest = await self._calls.call(
            "changes_since",
            scripts.CHANGES_SINCE,
            "" if cursor is None else cursor,
            MAX_CHANGES,
        )
        if not rest:
            return newest, None
        entries, (seconds, microseconds) = rest
        now_us = int(seconds) * 1_000_000 + int(microseconds)
        return newest, [_as_change(fields, now_us) for _, fields in entries]

    async def ping(self) -> None:
        # A key that is there or not, rather than PING: only that shows whether the node which
        # matters responds.
        await self._calls.run("ping", lambda redis: redis.exists(self._calls.keys.root + "clients"))

    @property
    def rejects_writes(self) -> bool:
        return self._calls.health.rejects_writes

    async def find_hazards(self) -> Sequence[str]:
        """See `Store`. Nothing is found where the user may not ask."""

        async def work(redis: Connection) -> set[str]:
            if self._calls.link.is_cluster:
                infos = [
                    await redis.info("memory", target_nodes=node) for node in redis.get_primaries()
                ]
            else:
                infos = [await redis.info("memory")]
            return {str(info.get("maxmemory_policy", "noeviction")) for info in infos}

        try:
            policies = await self._calls.link.run(work)
        except StoreRejectedError:
            return []
        return [
            f"Redis has maxmemory-policy {policy}: short of memory, it drops clients and "
            "revocations; set it to noeviction"
            for policy in sorted(policies - {"noeviction"})
        ]

    async def watch_changes(
        self, *, on_change: Callable[[], None], on_gap: Callable[[], None]
    ) -> None:
        await watch(self._calls.link, self._calls.keys.channel, on_change, on_gap)

    async def close(self) -> None:
        await self._calls.close()


def _as_change(fields: Sequence[bytes], now_us: int) -> Change:
    what, value, _, _, _, made_us = fields
    age_s = max(0.0, (now_us - int(made_us)) / 1_000_000)
    if what == b"client":
        return ClientChange(value.decode(), age_s)
    return TokenChange(value, age_s)
