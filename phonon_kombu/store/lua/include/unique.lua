--[[ unique(name, of, at): the id of the job that has the deduplication id `name`; nil if none has
it, or the job `of` does, which its successor (a retry) may take it from.
reserve(name, id, ttl_ms, at): `id` has it from now on, for a time or ('') as long as it exists.
sweep(at, limit): forget deduplication ids that have ended.
Needs the locals `items`, `taken` (HASH) and `ends` (ZSET): `t<job>` ends at its score, `j<job>`
with its job, at which is looked again after a minute.
COST three commands; reserve two; sweep one, up to 1 + 3 * limit ]]
local function unique(name, of, at)
  local holder = redis.call('HGET', taken, name)
  if not holder then
    return nil
  end
  local job, live = string.sub(holder, 2), false
  if string.sub(holder, 1, 1) == 't' then
    live = tonumber(redis.call('ZSCORE', ends, name) or 0) > at
  else
    live = redis.call('HEXISTS', items, job) == 1
  end
  return live and job ~= of and job or nil
end
local function reserve(name, id, ttl_ms, at)
  redis.call('HSET', taken, name, (ttl_ms ~= '' and 't' or 'j') .. id)
  redis.call('ZADD', ends, at + (ttl_ms ~= '' and ttl_ms or 60000), name)
end
local function sweep(at, limit)
  local past = redis.call('ZRANGEBYSCORE', ends, '-inf', at, 'LIMIT', 0, limit)
  for _, name in ipairs(past) do
    local holder = redis.call('HGET', taken, name) or ''
    local job = string.sub(holder, 2)
    if string.sub(holder, 1, 1) == 'j' and redis.call('HEXISTS', items, job) == 1 then
      redis.call('ZADD', ends, at + 60000, name)
    else
      redis.call('ZREM', ends, name)
      redis.call('HDEL', taken, name)
    end
  end
end
