--[[ most_deliveries(default): how often a job of this queue may fail before it is stalled; nil: as
often as it likes. The queue's config goes before `default` (a number as text, '' none).
Needs the local `config`.
fail(id, limit): count a failed delivery of a job whose claim has just been dropped. Returns true
if that was one too many, and the job is stalled now; else its place is for the caller to give.
It was delivered in time: from now on it does not expire.
Needs the locals `cancelled`, `stalled`, `reasons`, `published`, `deadlines`.
COST three commands, four more where the job is stalled ]]
local function most_deliveries(default)
  local limit = tonumber(redis.call('HGET', config, 'max_deliveries') or default)
  return limit and limit > 0 and limit or nil
end
local function fail(id, limit)
  local failures = redis.call('HINCRBY', cancelled, id, 1)
  redis.call('ZREM', deadlines, id)
  if not limit or failures < limit then
    return false
  end
  redis.call('SADD', stalled, id)
  redis.call('HSET', reasons, id, 'max_deliveries: failed ' .. failures .. ' times')
  redis.call('ZREM', published, id)
  redis.call('HDEL', cancelled, id)
  return true
end
