"""Looking for clients in Redis, and what is known of their use.

Use is kept in the client's own hash, so it goes with the client. There is no index to
search by: a search walks along the ids, a bounded number of clients to a call, so that
Redis is never busy with it for long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.oauth.models import AccessToken, Client, ClientUsage
from gateway.store.link import Connection
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.scripts import provider_script
from gateway.store.redis.tokens import REVOKED
from gateway.store.redis.values import as_clients, as_limit, as_stored_token, as_token
from gateway.store.rows import token_position

LOOK_AT = 1000
"""Clients that one call looks at: about a millisecond of Redis' time."""
MAX_A_CALL = 200

# ARGV: text, after, how many to find, how many to look at. Where to go on ('' is the end),
# and the clients found, each an id and its fields.
SEARCH_CLIENTS = provider_script("""
local text, limit, look_at = string.lower(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local ids = redis.call('ZRANGEBYLEX', root .. 'clients', first, '+', 'LIMIT', 0, look_at)
local found = {}
for at, id in ipairs(ids) do
  local name = redis.call('HGET', client_key(id), 'name')
  if name and (string.find(string.lower(id), text, 1, true)
               or string.find(string.lower(name), text, 1, true)) then
    found[#found + 1] = {id, redis.call('HGETALL', client_key(id))}
    if #found == limit then return {id, found} end
  end
end
return {#ids == look_at and ids[#ids] or '', found}
""")

# ARGV: id, last use or '', tokens issued; any number of times.
RECORD_USAGE = provider_script("""
for at = 1, #ARGV, 3 do
  local name = client_key(ARGV[at])
  if redis.call('EXISTS', name) == 1 then
    local used = redis.call('HGET', name, 'used')
    if ARGV[at + 1] ~= '' and (not used or tonumber(used) < tonumber(ARGV[at + 1])) then
      redis.call('HSET', name, 'used', ARGV[at + 1])
    end
    redis.call('HINCRBY', name, 'issued', ARGV[at + 2])
  end
end
""")


class RedisUsage:
    """Implements `gateway.oauth.models.UsageStore`."""

    def __init__(self, calls: RedisCalls) -> None:
        self._calls = calls

    async def search_clients(
        self, text: str, *, after: str = "", limit: int = 100
    ) -> Sequence[Client]:
        found: list[Client] = []
        while len(found) < limit:
            following, more = await self._calls.call(
                "search_clients", SEARCH_CLIENTS, text, after, limit - len(found), LOOK_AT
            )
            found += as_clients(more)
            after = following.decode()
            if not after:
                break
        return found

    async def record_usage(self, usages: Sequence[ClientUsage]) -> None:
        for first in range(0, len(usages), MAX_A_CALL):
            arguments: list[str | int] = []
            for usage in usages[first : first + MAX_A_CALL]:
                used = "" if usage.last_used is None else repr(usage.last_used)
                arguments += [usage.client_id, used, usage.tokens_issued]
            await self._calls.call("record_usage", RECORD_USAGE, *arguments)

    async def client_usage(self, client_ids: Sequence[str]) -> Mapping[str, ClientUsage]:
        async def work(redis: Connection) -> dict[str, ClientUsage]:
            pipeline = redis.pipeline(transaction=False)
            for client_id in client_ids:
                pipeline.hmget(self._calls.keys.client(client_id), "used", "issued")
            values = await pipeline.execute() if client_ids else []
            return {
                client_id: ClientUsage(client_id, float(used) if used else None, int(issued or 0))
                for client_id, (used, issued) in zip(client_ids, values, strict=True)
                if used or issued
            }

        return await self._calls.run("client_usage", work)

    async def count_tokens(self, client_id: str) -> int:
        now = self._calls.wall_clock()

        async def work(redis: Connection) -> int:
            epoch = await redis.hget(self._calls.keys.client(client_id), "epoch")
            if epoch is None:
                return 0
            index = self._calls.keys.tokens_of(client_id, epoch.decode())
            count: int = await redis.zcount(index, f"({now!r}", "+inf")
            return count

        return await self._calls.run("count_tokens", work)

    async def list_tokens(
        self, client_id: str, *, after: AccessToken | None = None, limit: int = 100
    ) -> Sequence[AccessToken]:
        now, position = self._calls.wall_clock(), token_position(after)

        async def work(redis: Connection) -> list[AccessToken]:
            epoch, name, rate_limit = await redis.hmget(
                self._calls.keys.client(client_id), "epoch", "name", "rate_limit"
            )
            if epoch is None or name is None:
                return []
            index = self._calls.keys.tokens_of(client_id, epoch.decode())
            first = f"({now!r}" if now > position[0] else repr(position[0])
            found: list[AccessToken] = []
            start = 0
            while len(found) < limit:
                members = await redis.zrangebyscore(
                    index, first, "+inf", start=start, num=limit, withscores=True
                )
                start += len(members)
                digests = [digest for digest, ends in members if (ends, digest) > position]
                pipeline = redis.pipeline(transaction=False)
                for digest in digests:
                    pipeline.get(self._calls.keys.token(digest))
                values = await pipeline.execute() if digests else []
                for digest, value in zip(digests, values, strict=True):
                    if value is not None and not value.startswith(REVOKED):
                        stored = as_stored_token(value)
                        found.append(as_token(digest, stored, name.decode(), as_limit(rate_limit)))
                if len(members) < limit:
                    break
            return found[:limit]

        return await self._calls.run("list_tokens", work)
