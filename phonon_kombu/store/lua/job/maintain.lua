--[[ job/maintain: a slice of the housekeeping that no claim does.
Promotes what is due, drops what has expired (where there is a dead-letter exchange it waits for
it), forgets deduplication ids that have ended, gives back claims that are older than the queue's
`claim_timeout` where one is set (config, ms): the only rule that touches a living owner's job.
KEYS    1 items HASH   2 claimed ZSET   3 owners HASH   4 cancelled HASH   5 scheduled ZSET
        6 published ZSET   7 wake ZSET   8 priorities HASH   9 deadlines ZSET   10 ghosts HASH
        11 config HASH   12 stalled SET   13 reasons HASH   14 dead LIST   15 unique HASH
        16 unique_ends ZSET   17+ levels LIST (all ten, level 0 first)
ARGV    1 limit (jobs of each kind in this slice)   2 max_deliveries ('' no limit; see job/cancel)
RETURNS promoted, expired, timed out, ms until a job is due or expires (-1: none does)
ERRORS  none
STATES  scheduled -> ready, claimed -> ready, stalled, ready -> absent   COST O(limit * log n) ]]
--- @include now
local items, cancelled, scheduled, published = KEYS[1], KEYS[4], KEYS[5], KEYS[6]
local wake, priorities, deadlines = KEYS[7], KEYS[8], KEYS[9]
local config, stalled, reasons, claimed = KEYS[11], KEYS[12], KEYS[13], KEYS[2]
local levels, taken, ends = { unpack(KEYS, 17) }, KEYS[15], KEYS[16]
local rules = redis.call('HMGET', config, 'claim_timeout', 'dead_exchange')
local dead, lettered = KEYS[14], rules[2]
--- @include lifetime
--- @include ready
--- @include promote
--- @include forget
--- @include drop
--- @include unique
--- @include fail
--- @include late
local at, limit = now(), math.min(tonumber(ARGV[1]), 1000)
local promoted = promote(at)
local gone = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', at, 'LIMIT', 0, limit)) do
  -- What runs, runs to its end; what is stalled waits for somebody to look at it.
  if redis.call('ZSCORE', KEYS[2], id) or redis.call('SISMEMBER', KEYS[12], id) == 1 then
    redis.call('ZREM', deadlines, id)
  else
    if redis.call('ZREM', scheduled, id) == 0 then
      redis.call('HINCRBY', KEYS[10], id, 1)
    end
    gone[#gone + 1] = id
  end
end
if #gone > 0 then
  drop(gone, lettered and redis.call('HMGET', items, unpack(gone)), 'expired', at)
end
sweep(at, limit)
local overdue = {}
local timeout = tonumber(rules[1] or 0)
if timeout > 0 then
  overdue = redis.call('ZRANGEBYSCORE', claimed, '-inf', at - timeout, 'LIMIT', 0, limit)
end
if #overdue > 0 then
  local most = most_deliveries(ARGV[2])
  local owners = redis.call('HMGET', KEYS[3], unpack(overdue))
  for i = #overdue, 1, -1 do
    local id = overdue[i]
    redis.call('ZREM', claimed, id)
    redis.call('HDEL', KEYS[3], id)
    if not fail(id, most) then
      if owners[i] then
        local put_at = redis.call('ZSCORE', published, id) or ''
        redis.call('HSET', KEYS[3], id, late_mark(put_at, owners[i]))
      end
      ready(id, true)
    end
  end
end
local soonest = -1
for _, key in ipairs({ scheduled, deadlines }) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if first and (soonest < 0 or first - at < soonest) then
    soonest = math.max(0, first - at)
  end
end
return lifetime({ promoted, #gone, #overdue, soonest })
