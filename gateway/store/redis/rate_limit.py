"""Rate limits that a fleet shares through Redis: the algorithm of `gateway.rate_limit` as
one script, on the clock of Redis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from urllib.parse import quote

from gateway.rate_limit import Demand, Quota, tightest
from gateway.store.redis.link import RedisLink, call_script
from gateway.store.redis.scripts import Script

# KEYS: the buckets, each how full it was, and when. ARGV: for each, the microseconds in
# which a request leaks out, and the burst. Whether the request passes, then for each
# bucket: how many more fit, when it is empty, and when a request fits, in microseconds
# from now.
_ACQUIRE = Script("""
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local reply, filled, passes, ahead = {1}, {}, true, {}
for at, key in ipairs(KEYS) do
  local leak, burst, level = tonumber(ARGV[2 * at - 1]), tonumber(ARGV[2 * at]), 0
  local bucket = redis.call('GET', key)
  if bucket then
    local was, since = string.match(bucket, '^(.-)@(.*)$')
    level = math.max(0, tonumber(was) - math.max(0, now - tonumber(since)) / leak)
    -- The clock went back, as it does where a failover leads to a server whose own is behind.
    if tonumber(since) > now then ahead[at] = level end
  end
  local free = burst - level - 1
  local left, empty, wait = math.max(0, math.floor(free + 1e-6)), (level + 1) * leak, 0
  if free < -1e-6 then
    passes = false
    left, empty, wait = 0, level * leak, math.max(1, -free * leak)
  end
  filled[at] = level + 1
  reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = left, empty, wait
end
local function keep(at, level)
  local ttl = math.ceil(level * tonumber(ARGV[2 * at - 1]) / 1000) + 1
  redis.call('SET', KEYS[at], string.format('%.9f@%.0f', level, now), 'PX', ttl)
end
if not passes then
  reply[1] = 0
  -- A bucket that is full as of a time to come would not leak until then.
  for at, level in pairs(ahead) do keep(at, level) end
  return reply
end
for at in ipairs(KEYS) do keep(at, filled[at]) end
return reply
""")


class RedisRateLimits:
    """Implements `gateway.rate_limit.SharedRateLimits`."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._prefix = link.url.prefix

    @property
    def is_away(self) -> bool:
        return self._link.is_resting

    async def acquire(self, demands: Sequence[Demand]) -> Quota:
        """See `SharedRateLimits`. In a Cluster, limits of different subjects are on different
        nodes: there the first may have counted a request that the second refuses."""
        if not self._link.is_cluster:
            return await self._acquire(demands)
        quotas = []
        for _, of_subject in groupby(demands, key=lambda demand: demand.subject):
            quotas.append(await self._acquire(list(of_subject)))
            if not quotas[-1].is_allowed:
                break
        return tightest(quotas)

    async def _acquire(self, demands: Sequence[Demand]) -> Quota:
        keys = [self._key(demand) for demand in demands]
        arguments: list[str] = []
        for demand in demands:
            cost_us = demand.limit.interval_s * 1_000_000
            arguments += (repr(cost_us), str(demand.limit.burst))
        response: list[int] = await self._link.run(
            lambda redis: call_script(redis, _ACQUIRE, keys, *arguments)
        )
        passes, *numbers = response
        quotas = []
        for at, demand in enumerate(demands):
            left, empty_us, wait_us = numbers[3 * at : 3 * at + 3]
            quotas.append(
                Quota(
                    is_allowed=bool(passes) or not wait_us,
                    limit=demand.limit.burst,
                    remaining=left,
                    reset_s=math.ceil(empty_us / 1_000_000),
                    retry_after_s=max(1, math.ceil(wait_us / 1_000_000)) if wait_us else 0,
                )
            )
        return tightest(quotas)

    def _key(self, demand: Demand) -> str:
        subject = quote(demand.subject, safe=":!#$&'()*+,-./;<=>?@[]^_`|~")
        # A limit that changes begins with an empty bucket, as it does locally.
        limit = f"{demand.limit.requests}/{demand.limit.per_s:g}/{demand.limit.burst}"
        return f"{self._prefix}:rate:{{{subject}}}:{demand.scope}:{limit}"

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()
