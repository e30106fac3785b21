"""Lua scripts: what must happen atomically in Redis.

KEYS[1] of those that concern clients, records and changes is the root of all their keys,
`{PREFIX}:`. Its braces keep them in one hash slot, so each script is atomic also in a
Cluster. Redis runs a script alone, and replicates it as one transaction.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest that EVALSHA names it by."""

    text: str
    sha1: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis' name for a script, no matter of security.
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha1", digest)


_PROVIDER = """
local root = KEYS[1]
local function client_key(id) return root .. 'client:' .. id end
local function record_key(kind, key) return root .. 'record:' .. kind .. ':' .. key end

-- The number of the newest change: by the log where the counter is behind, as it is once it was
-- evicted, deleted or restored from an older state.
local function newest_change()
  local newest = tonumber(redis.call('GET', root .. 'changes:seq') or '0')
  if redis.call('EXISTS', root .. 'changes') == 1 then
    local about = redis.call('XINFO', 'STREAM', root .. 'changes')
    for at = 1, #about, 2 do
      if about[at] == 'last-generated-id' then
        newest = math.max(newest, tonumber(string.match(about[at + 1], '^%d+')))
      end
    end
  end
  return newest
end

-- Announce to every process what it must evict. Comes first in a script: where it is rejected,
-- nothing has been changed yet, and nothing is visible before the script ends.
local function announce(field, what, at)
  local seq = string.format('%.0f', newest_change() + 1)
  redis.call('SET', root .. 'changes:seq', seq)
  local now = redis.call('TIME')
  local us = now[1] .. string.format('%06d', tonumber(now[2]))
  redis.call('XADD', root .. 'changes', 'MAXLEN', '~', 100000, seq .. '-1',
             field, what, 'at', at, 'us', us)
  redis.call('PUBLISH', root .. 'changes', seq)
end

-- A member of the indexes of records: KIND NUL OWNER NUL KEY, of which only KEY may hold a NUL.
local function split(member)
  local first = string.find(member, '\\0', 1, true)
  local second = string.find(member, '\\0', first + 1, true)
  return string.sub(member, 1, first - 1), string.sub(member, first + 1, second - 1),
         string.sub(member, second + 1)
end

local function is_live(expires, now)
  return expires == '' or tonumber(expires) > tonumber(now)
end

local function unindex(kind, owner, key)
  redis.call('ZREM', root .. 'records:' .. kind, key)
  redis.call('ZREM', root .. 'owned:' .. owner, kind .. '\\0' .. key)
  redis.call('ZREM', root .. 'ending-records', kind .. '\\0' .. owner .. '\\0' .. key)
end

-- Remove a record. Returns owner, value, expires and version of what was live.
local function drop_record(kind, key, now)
  local record = redis.call('HMGET', record_key(kind, key), 'owner', 'value', 'expires', 'version')
  if not record[1] then return false end
  redis.call('DEL', record_key(kind, key))
  unindex(kind, record[1], key)
  if not is_live(record[3], now) then return false end
  return record
end

-- Writes all fields, before it removes anything: a full Redis rejects commands that need memory,
-- but lets a script go on that has written.
local function keep_record(kind, key, owner, value, expires, version, ttl_ms)
  local name = record_key(kind, key)
  local old_owner = redis.call('HGET', name, 'owner')
  redis.call('HSET', name, 'owner', owner, 'value', value, 'expires', expires, 'version', version)
  if old_owner and old_owner ~= owner then unindex(kind, old_owner, key) end
  if ttl_ms ~= '' then redis.call('PEXPIRE', name, ttl_ms) else redis.call('PERSIST', name) end
  redis.call('ZADD', root .. 'records:' .. kind, 0, key)
  redis.call('ZADD', root .. 'owned:' .. owner, 0, kind .. '\\0' .. key)
  local ending = kind .. '\\0' .. owner .. '\\0' .. key
  if expires == '' then
    redis.call('ZREM', root .. 'ending-records', ending)
  else
    redis.call('ZADD', root .. 'ending-records', expires, ending)
  end
end

-- Remove all records of an owner, of whom there are few: see DELETE_OWNED_RECORDS.
local function drop_owned(owner, now)
  for _, member in ipairs(redis.call('ZRANGE', root .. 'owned:' .. owner, 0, -1)) do
    local border = string.find(member, '\\0', 1, true)
    local kind, key = string.sub(member, 1, border - 1), string.sub(member, border + 1)
    if not drop_record(kind, key, now) then unindex(kind, owner, key) end
  end
end

local function set_end(id, expires)
  if expires == '' then redis.call('ZREM', root .. 'ending-clients', id)
  else redis.call('ZADD', root .. 'ending-clients', expires, id) end
end

-- Remove a client and what it owns. Returns the epoch of its tokens.
local function drop_client(id, now)
  local epoch = redis.call('HGET', client_key(id), 'epoch')
  if not epoch then return false end
  redis.call('DEL', client_key(id))
  redis.call('ZREM', root .. 'clients', id)
  redis.call('ZREM', root .. 'ending-clients', id)
  drop_owned('client:' .. id, now)
  return epoch
end

local function keep_client(id, expires, first_field)
  redis.call('HSET', client_key(id), 'expires', expires, unpack(ARGV, first_field))
  redis.call('ZADD', root .. 'clients', 0, id)
  set_end(id, expires)
end
"""


def provider_script(text: str) -> Script:
    """A script that knows the keys of clients, records and changes."""
    return Script(_PROVIDER + text)


_provider = provider_script


# ARGV: id, expires, then fields and values. Whether the id was free.
ADD_CLIENT = _provider("""
if redis.call('EXISTS', client_key(ARGV[1])) == 1 then return 0 end
keep_client(ARGV[1], ARGV[2], 3)
return 1
""")

# ARGV: id, expires, now, then fields and values. The namesake's epoch, if there was one.
REPLACE_CLIENT = _provider("""
local generation = redis.call('HGET', client_key(ARGV[1]), 'generation')
if generation then announce('client', ARGV[1], ARGV[3]) end
local epoch = drop_client(ARGV[1], ARGV[3])
keep_client(ARGV[1], ARGV[2], 4)
if epoch and generation then
  redis.call('HSET', client_key(ARGV[1]), 'generation', generation)
  redis.call('HINCRBY', client_key(ARGV[1]), 'generation', 1)
end
return epoch
""")

# ARGV: id, expires, an epoch for a client that has none, then fields and values.
IMPORT_CLIENT = _provider("""
local epoch = redis.call('HGET', client_key(ARGV[1]), 'epoch') or ARGV[3]
keep_client(ARGV[1], ARGV[2], 4)
redis.call('HSET', client_key(ARGV[1]), 'epoch', epoch)
""")

# ARGV: id, now. The epoch, if there was such a client.
DELETE_CLIENT = _provider("""
if redis.call('HEXISTS', client_key(ARGV[1]), 'epoch') == 1 then
  announce('client', ARGV[1], ARGV[2])
end
return drop_client(ARGV[1], ARGV[2])
""")

# ARGV: id, now, the generation it must have or '', whether to raise it and to notify processes, the
# new end or 'same', then fields and values. The client as it is now.
UPDATE_CLIENT = _provider("""
local name = client_key(ARGV[1])
local generation = redis.call('HGET', name, 'generation')
if not generation or (ARGV[3] ~= '' and ARGV[3] ~= generation) then return false end
if ARGV[4] == '1' then
  announce('client', ARGV[1], ARGV[2])
  redis.call('HINCRBY', name, 'generation', 1)
end
if ARGV[5] ~= 'same' then
  redis.call('HSET', name, 'expires', ARGV[5])
  set_end(ARGV[1], ARGV[5])
end
if #ARGV > 5 then redis.call('HSET', name, unpack(ARGV, 6)) end
return redis.call('HGETALL', name)
""")

# ARGV: id, the new epoch, now. The epoch that has ended, if there is such a client.
REVOKE_CLIENT_TOKENS = _provider("""
local name = client_key(ARGV[1])
local epoch = redis.call('HGET', name, 'epoch')
if epoch then
  announce('client', ARGV[1], ARGV[3])
  redis.call('HSET', name, 'epoch', ARGV[2])
end
return epoch
""")

# ARGV: id, the limit or '', now. The client as it is now.
SET_CLIENT_RATE_LIMIT = _provider("""
local name = client_key(ARGV[1])
if redis.call('EXISTS', name) == 0 then return false end
announce('client', ARGV[1], ARGV[3])
redis.call('HSET', name, 'rate_limit', ARGV[2])
return redis.call('HGETALL', name)
""")

# ARGV: before, now, how many, how many records each may have. How many clients were removed that
# ended before, and one that has more records.
PURGE_CLIENTS = _provider("""
local ids = redis.call('ZRANGEBYSCORE', root .. 'ending-clients', '-inf', '(' .. ARGV[1],
                       'LIMIT', 0, ARGV[3])
for at, id in ipairs(ids) do
  if redis.call('ZCARD', root .. 'owned:client:' .. id) > tonumber(ARGV[4]) then
    return {at - 1, id}
  end
  drop_client(id, ARGV[2])
end
return {#ids}
""")

# ARGV: after, how many, how many to look at. Where to go on ('' is the end), clients in the
# order of their ids, each an id and its fields, and ids in the index whose client is gone.
LIST_CLIENTS = _provider("""
local first, limit = ARGV[1] == '' and '-' or '(' .. ARGV[1], tonumber(ARGV[2])
local ids = redis.call('ZRANGEBYLEX', root .. 'clients', first, '+', 'LIMIT', 0, ARGV[3])
local found, gone = {}, {}
for _, id in ipairs(ids) do
  local fields = redis.call('HGETALL', client_key(id))
  if #fields == 0 then gone[#gone + 1] = id
  else found[#found + 1] = {id, fields} end
  if #found == limit then return {id, found, gone} end
end
return {#ids == tonumber(ARGV[3]) and ids[#ids] or '', found, gone}
""")

# ARGV: now, before, how many. Clients that end in between, soonest first, and ids in the index
# whose client is gone.
EXPIRING_CLIENTS = _provider("""
local found, gone = {}, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. 'ending-clients', '(' .. ARGV[1],
                               '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])) do
  local fields = redis.call('HGETALL', client_key(id))
  if #fields == 0 then gone[#gone + 1] = id
  else found[#found + 1] = {id, fields} end
end
return {found, gone}
""")

# ARGV: now, then ids. Remove what is left of clients that are in an index, and gone themselves.
FORGET_CLIENTS = _provider("""
for at = 2, #ARGV do
  local id = ARGV[at]
  if redis.call('EXISTS', client_key(id)) == 0 then
    redis.call('ZREM', root .. 'clients', id)
    redis.call('ZREM', root .. 'ending-clients', id)
    drop_owned('client:' .. id, ARGV[1])
  end
end
""")

# ARGV: now, soon. How many clients there are, have ended, and end soon.
CENSUS = _provider("""
return {redis.call('ZCARD', root .. 'clients'),
        redis.call('ZCOUNT', root .. 'ending-clients', '-inf', ARGV[1]),
        redis.call('ZCOUNT', root .. 'ending-clients', '(' .. ARGV[1], '(' .. ARGV[2])}
""")

# ARGV: digest, now.
ANNOUNCE_TOKEN = _provider("announce('token', ARGV[1], ARGV[2])")

# ARGV: the cursor, or ''; the most changes to read. The newest number and, if none was
# missed, the changes and the time.
CHANGES_SINCE = _provider("""
local newest = newest_change()
if ARGV[1] == '' or tonumber(ARGV[1]) == newest then return {newest, {}, redis.call('TIME')} end
local cursor = tonumber(ARGV[1])
if cursor > newest or newest - cursor > tonumber(ARGV[2]) then return {newest} end
local next_one = string.format('%.0f-1', cursor + 1)
local oldest = redis.call('XRANGE', root .. 'changes', next_one, next_one)
if #oldest == 0 then return {newest} end
return {newest, redis.call('XRANGE', root .. 'changes', next_one, '+'), redis.call('TIME')}
""")

# ARGV: how many seconds to keep. Forget changes that are older by the clock of Redis, which made
# their times, but for the newest: others' cursors are measured against it.
PURGE_CHANGES = _provider("""
local log, gone, now = root .. 'changes', 0, redis.call('TIME')
local horizon = (tonumber(now[1]) - tonumber(ARGV[1])) * 1000000
while true do
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 2)
  if #oldest < 2 then return gone end
  local fields = oldest[1][2]
  if tonumber(fields[6]) >= horizon or gone >= 1000 then return gone end
  redis.call('XDEL', log, oldest[1][1])
  gone = gone + 1
end
""")

GET_TIME = Script("return redis.call('TIME')")

# ARGV of all on records: now, kind, key, then owner, value, expires, version, TTL in ms.
ADD_RECORD = _provider("""
local expires = redis.call('HGET', record_key(ARGV[2], ARGV[3]), 'expires')
if expires and is_live(expires, ARGV[1]) then return 0 end
keep_record(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8])
return 1
""")

IMPORT_RECORD = _provider("""
keep_record(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8])
""")

# The version kept.
PUT_RECORD = _provider("""
local old = redis.call('HMGET', record_key(ARGV[2], ARGV[3]), 'expires', 'version')
local version = ARGV[7]
if old[1] and is_live(old[1], ARGV[1]) then
  version = string.format('%.0f', tonumber(old[2]) + 1)
end
keep_record(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], version, ARGV[8])
return tonumber(version)
""")

# After those: owner, value, expires and version as they must be now; and a change to announce, if
# any, such as 'client' and its id.
SWAP_RECORD = _provider("""
local old = redis.call('HMGET', record_key(ARGV[2], ARGV[3]),
                       'owner', 'value', 'expires', 'version')
for at = 1, 4 do if old[at] ~= ARGV[8 + at] then return 0 end end
if not is_live(old[3], ARGV[1]) then return 0 end
if ARGV[13] then announce(ARGV[13], ARGV[14], ARGV[1]) end
keep_record(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8])
return 1
""")

# After the key: a change to announce, if any.
TAKE_RECORD = _provider("""
local expires = redis.call('HGET', record_key(ARGV[2], ARGV[3]), 'expires')
if ARGV[4] and expires and is_live(expires, ARGV[1]) then announce(ARGV[4], ARGV[5], ARGV[1]) end
return drop_record(ARGV[2], ARGV[3], ARGV[1])
""")

# ARGV: now, kind or '' for all, owner, how many, how many to leave. Remove records of an owner. How
# many were looked at, and how many of them were live.
DELETE_OWNED_RECORDS = _provider("""
local owner, wanted = ARGV[3], ARGV[2]
if redis.call('ZCARD', root .. 'owned:' .. owner) <= tonumber(ARGV[5]) then return {0, 0} end
local first, last = '-', '+'
if wanted ~= '' then first, last = '[' .. wanted .. '\\0', '(' .. wanted .. '\\1' end
local members = redis.call('ZRANGEBYLEX', root .. 'owned:' .. owner, first, last,
                           'LIMIT', 0, ARGV[4])
local live = 0
for _, member in ipairs(members) do
  local border = string.find(member, '\\0', 1, true)
  local kind, key = string.sub(member, 1, border - 1), string.sub(member, border + 1)
  if redis.call('HGET', record_key(kind, key), 'owner') ~= owner then unindex(kind, owner, key)
  elseif drop_record(kind, key, ARGV[1]) then live = live + 1 end
  redis.call('ZREM', root .. 'owned:' .. owner, member)
end
return {#members, live}
""")

# ARGV: now, kind, after, how many, owner or '', how many to look at. Where to go on ('' is the
# end), and the records, each a key and its fields.
LIST_RECORDS = _provider("""
local now, kind, after, limit, owner = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local look_at = tonumber(ARGV[6])
local index, front = root .. 'records:' .. kind, ''
if owner ~= '' then index, front = root .. 'owned:' .. owner, kind .. '\\0' end
local found, last = {}, '+'
if owner ~= '' then last = '(' .. kind .. '\\1' end
local first = (after == '' and '[' or '(') .. front .. after
if first == '[' then first = '-' end
local members = redis.call('ZRANGEBYLEX', index, first, last, 'LIMIT', 0, look_at)
for _, member in ipairs(members) do
  local key = string.sub(member, #front + 1)
  local record = redis.call('HMGET', record_key(kind, key), 'owner', 'value', 'expires', 'version')
  if record[1] and is_live(record[3], now) then found[#found + 1] = {key, record} end
  if #found == limit then return {key, found} end
end
return {#members == look_at and string.sub(members[#members], #front + 1) or '', found}
""")

# ARGV: now, before, how many. Forget records that ended before. How many were looked at, and
# how many of them Redis had not removed by itself.
PURGE_RECORDS = _provider("""
local ending = root .. 'ending-records'
local members = redis.call('ZRANGEBYSCORE', ending, '-inf', '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])
local removed = 0
for _, member in ipairs(members) do
  local kind, owner, key = split(member)
  local record = redis.call('HMGET', record_key(kind, key), 'owner', 'expires')
  if not record[1] then
    unindex(kind, owner, key)
  elseif record[2] ~= '' and tonumber(record[2]) < tonumber(ARGV[2]) then
    drop_record(kind, key, ARGV[1])
    removed = removed + 1
  end
  if record[1] and record[1] ~= owner then
    redis.call('ZREM', root .. 'owned:' .. owner, kind .. '\\0' .. key)
  end
  redis.call('ZREM', ending, member)
end
return {#members, removed}
""")

# KEYS: the root, the token, which is in another hash slot: not for a Cluster. ARGV: digest, now.
# The token as it was, also where a Cluster has marked it.
REVOKE_TOKEN = _provider("""
local token = redis.call('GET', KEYS[2])
if not token then return false end
announce('token', ARGV[1], ARGV[2])
redis.call('DEL', KEYS[2])
return string.sub(token, string.sub(token, 1, 1) == '-' and 2 or 1)
""")

# KEYS: the token. Marks it as revoked rather than removing it, so that who fails before
# all processes are notified can be retried. The token as it was, also where it is marked already.
MARK_TOKEN = Script("""
local token = redis.call('GET', KEYS[1])
if not token then return false end
if string.sub(token, 1, 1) == '-' then return string.sub(token, 2) end
redis.call('SET', KEYS[1], '-' .. token, 'KEEPTTL')
return token
""")

# KEYS: the index of a client's tokens. ARGV: digest, expires, now, TTL in ms, how many that have
# expired to remove at most: a million that expire together must not hold up Redis.
INDEX_TOKEN = Script("""
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
local expired = math.min(redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[3]), tonumber(ARGV[5]))
if expired > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, expired - 1) end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
""")
