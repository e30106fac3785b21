"""The clients of the Redis store.

Each is a hash that also holds the *epoch* of its tokens, a random text. A token is valid
only in the epoch that it was issued in, so replacing that text revokes all tokens of the
client in one step, however many there are.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Sequence

from gateway.oauth.models import (
    Client,
    ClientCensus,
    ClientChange,
    ClientExistsError,
    StoreUnavailableError,
    client_owner,
)
from gateway.rate_limit import RateLimit
from gateway.store.redis import scripts
from gateway.store.redis.link import Connection
from gateway.store.redis.server import REMOVE_BATCH, RedisServer
from gateway.store.redis.values import (
    as_client,
    as_clients,
    changed_fields,
    client_fields,
    end_text,
    limit_text,
)

_log = logging.getLogger(__name__)


class RedisClients(RedisServer):
    """Implements `gateway.oauth.models.ClientStore`."""

    async def get_client(self, client_id: str) -> Client | None:
        name = self._keys.client(client_id)
        fields = await self._run("get_client", lambda redis: redis.hgetall(name))
        return as_client(client_id, fields) if fields else None

    async def add_client(self, client: Client) -> None:
        was_free = await self._call(
            "add_client",
            scripts.ADD_CLIENT,
            client.client_id,
            end_text(client.expires_at),
            *client_fields(client),
            *("epoch", new_epoch()),
        )
        if not was_free:
            raise ClientExistsError

    async def replace_client(self, client: Client) -> int:
        await self._delete_records(client_owner(client.client_id), leave=REMOVE_BATCH)
        with self._announced(ClientChange(client.client_id)):
            epoch = await self._call(
                "replace_client",
                scripts.REPLACE_CLIENT,
                client.client_id,
                end_text(client.expires_at),
                self._wall_clock(),
                *client_fields(client),
                *("epoch", new_epoch()),
            )
        if epoch is not None:
            self._on_change(ClientChange(client.client_id))
        return await self._count_ended(client.client_id, epoch)

    async def delete_client(self, client_id: str) -> int | None:
        await self._delete_records(client_owner(client_id), leave=REMOVE_BATCH)
        with self._announced(ClientChange(client_id)):
            epoch = await self._call(
                "delete_client", scripts.DELETE_CLIENT, client_id, self._wall_clock()
            )
        if epoch is None:
            return None
        self._on_change(ClientChange(client_id))
        return await self._count_ended(client_id, epoch)

    async def revoke_client_tokens(self, client_id: str) -> int:
        with self._announced(ClientChange(client_id)):
            epoch = await self._call(
                "revoke_client_tokens",
                scripts.REVOKE_CLIENT_TOKENS,
                client_id,
                new_epoch(),
                self._wall_clock(),
            )
        self._on_change(ClientChange(client_id))
        return await self._count_ended(client_id, epoch)

    async def _count_ended(self, client_id: str, epoch: bytes | None) -> int:
        """How many tokens lived in an epoch that has ended. They are gone already, and their
        keys end by themselves."""
        if epoch is None:
            return 0
        index = self._keys.tokens_of(client_id, epoch.decode())
        now = self._wall_clock()

        async def work(redis: Connection) -> int:
            count: int = await redis.zcount(index, f"({now!r}", "+inf")
            await redis.unlink(index)
            return count

        return await self._run("count_tokens", work)

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        clients: list[Client] = []
        last: str | bytes = after
        while len(clients) < limit:
            # One more than is needed, so that the end shows.
            wanted = limit - len(clients)
            last, found, gone = await self._call(
                "list_clients", scripts.LIST_CLIENTS, last, wanted, wanted + 1
            )
            clients += as_clients(found)
            await self._forget_gone(gone)
            if not last:
                break
        return clients

    async def _forget_gone(self, ids: Sequence[bytes]) -> None:
        """Remove from the indexes what names a client that Redis has lost, as it does where its
        `maxmemory-policy` is another than `noeviction`."""
        if not ids:
            return
        _log.warning(
            "Redis has lost %d client(s) that were not deleted, such as %r: check its "
            "maxmemory-policy, which must be noeviction",
            len(ids),
            ids[0].decode("utf-8", "replace"),
        )
        with contextlib.suppress(StoreUnavailableError):  # they are met again
            await self._call("forget_clients", scripts.FORGET_CLIENTS, self._wall_clock(), *ids)

    async def update_client(self, client: Client, *, generation: int) -> Client | None:
        return await self._update(
            "update_client",
            client.client_id,
            *(generation, 1, end_text(client.expires_at)),
            *changed_fields(client),
        )

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        return await self._update("set_client_expiry", client_id, "", 0, end_text(expires_at))

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        return await self._update(
            "set_client_secret", client_id, *("", 1, "same"), *("secret", secret_hash)
        )

    async def set_client_rate_limit(
        self, client_id: str, rate_limit: RateLimit | None
    ) -> Client | None:
        fields = await self._call(
            "set_client_rate_limit",
            scripts.SET_CLIENT_RATE_LIMIT,
            client_id,
            limit_text(rate_limit),
            self._wall_clock(),
        )
        if fields is None:
            return None
        self._on_change(ClientChange(client_id))
        return as_client(client_id, fields)

    async def _update(
        self, operation: str, client_id: str, *arguments: str | bytes | int
    ) -> Client | None:
        fields = await self._call(operation, scripts.UPDATE_CLIENT, client_id, *arguments)
        return None if fields is None else as_client(client_id, fields)

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        return ClientCensus(*await self._call("census", scripts.CENSUS, now, expiring_before))

    async def expiring_clients(
        self, *, now: float, before: float, limit: int = 20
    ) -> Sequence[Client]:
        found, gone = await self._call(
            "expiring_clients", scripts.EXPIRING_CLIENTS, now, before, limit
        )
        await self._forget_gone(gone)
        return as_clients(found)


def new_epoch() -> str:
    """An epoch that no client has had before."""
    return secrets.token_hex(8)
