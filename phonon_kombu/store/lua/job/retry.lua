--[[ job/retry: a stalled job may run again, as if it had never failed.
KEYS    1 stalled SET   2 reasons HASH   3 cancelled HASH   4 published ZSET   5 wake ZSET
        6 priorities HASH   7 config HASH   8+ levels LIST (all ten, level 0 first)
ARGV    1 id   2 channel (none, or '': it is not announced)
RETURNS id   ERRORS NOTSTALLED   STATES stalled -> ready   COST O(log n) ]]
--- @include now
local wake, priorities, config = KEYS[5], KEYS[6], KEYS[7]
local levels = { unpack(KEYS, 8) }
--- @include lifetime
--- @include ready
local id = ARGV[1]
if redis.call('SREM', KEYS[1], id) == 0 then
  return redis.error_reply('NOTSTALLED the job is not stalled')
end
redis.call('HDEL', KEYS[2], id)
redis.call('HDEL', KEYS[3], id)
redis.call('ZADD', KEYS[4], now(), id)
ready(id, false)
lifetime()
if (ARGV[2] or '') ~= '' then
  redis.call('PUBLISH', ARGV[2], id)
end
return id
