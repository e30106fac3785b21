"""The clients of the Redis store.

Each is a hash that also holds the *epoch* of its tokens, a random text. A token is valid
only in the epoch that it was issued in, so replacing that text revokes all tokens of the
client in one step, however many there are.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from gateway.oauth.models import (
    Change,
    Client,
    ClientCensus,
    ClientChange,
    ClientExistsError,
    StoreUnavailableError,
    client_owner,
)
from gateway.rate_limit import RateLimit
from gateway.store.redis import scripts
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.records import RedisRecords
from gateway.store.redis.tokens import RedisTokens
from gateway.store.redis.values import (
    as_client,
    as_clients,
    changed_fields,
    client_fields,
    end_text,
    limit_text,
    new_epoch,
)

_log = logging.getLogger(__name__)


class RedisClients:
    """Implements `gateway.oauth.models.ClientStore`."""

    def __init__(self, calls: RedisCalls, tokens: RedisTokens, records: RedisRecords) -> None:
        self._calls = calls
        self._tokens = tokens
        self._records = records

    async def get_client(self, client_id: str) -> Client | None:
        name = self._calls.keys.client(client_id)
        fields = await self._calls.run("get_client", lambda redis: redis.hgetall(name))
        return as_client(client_id, fields) if fields else None

    async def add_client(self, client: Client) -> None:
        was_free = await self._calls.call(
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
        await self._records.delete_most_of_owner(client_owner(client.client_id))
        epoch = await self._calls.change(
            "replace_client",
            scripts.REPLACE_CLIENT,
            ClientChange(client.client_id),
            *(client.client_id, end_text(client.expires_at), self._calls.wall_clock()),
            *client_fields(client),
            *("epoch", new_epoch()),
        )
        return await self._tokens.count_ended(client.client_id, epoch)

    async def delete_client(self, client_id: str) -> int | None:
        await self._records.delete_most_of_owner(client_owner(client_id))
        epoch = await self._calls.change(
            "delete_client",
            scripts.DELETE_CLIENT,
            ClientChange(client_id),
            *(client_id, self._calls.wall_clock()),
        )
        return None if epoch is None else await self._tokens.count_ended(client_id, epoch)

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        clients: list[Client] = []
        last: str | bytes = after
        while len(clients) < limit:
            # One more than is needed, so that the end shows.
            wanted = limit - len(clients)
            last, found, gone = await self._calls.call(
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
            for client_id in ids:
                owner = client_owner(client_id.decode("utf-8", "replace"))
                await self._records.delete_most_of_owner(owner)
            await self._calls.call(
                "forget_clients", scripts.FORGET_CLIENTS, self._calls.wall_clock(), *ids
            )

    async def update_client(self, client: Client, *, generation: int) -> Client | None:
        return await self._update(
            "update_client",
            client.client_id,
            *(generation, 1, end_text(client.expires_at)),
            *changed_fields(client),
            change=ClientChange(client.client_id),
        )

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        return await self._update("set_client_expiry", client_id, "", 0, end_text(expires_at))

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        return await self._update(
            "set_client_secret",
            client_id,
            *("", 1, "same", "secret", secret_hash),
            change=ClientChange(client_id),
        )

    async def set_client_rate_limit(
        self, client_id: str, rate_limit: RateLimit | None
    ) -> Client | None:
        fields = await self._calls.change(
            "set_client_rate_limit",
            scripts.SET_CLIENT_RATE_LIMIT,
            ClientChange(client_id),
            *(client_id, limit_text(rate_limit), self._calls.wall_clock()),
        )
        return None if fields is None else as_client(client_id, fields)

    async def _update(
        self,
        operation: str,
        client_id: str,
        *arguments: str | bytes | int,
        change: Change | None = None,
    ) -> Client | None:
        fields = await self._calls.change(
            operation,
            scripts.UPDATE_CLIENT,
            change,
            *(client_id, self._calls.wall_clock(), *arguments),
        )
        return None if fields is None else as_client(client_id, fields)

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        return ClientCensus(*await self._calls.call("census", scripts.CENSUS, now, expiring_before))

    async def expiring_clients(
        self, *, now: float, before: float, limit: int = 20
    ) -> Sequence[Client]:
        found, gone = await self._calls.call(
            "expiring_clients", scripts.EXPIRING_CLIENTS, now, before, limit
        )
        await self._forget_gone(gone)
        return as_clients(found)
