--[[ job/stats: how many jobs are in each state.
KEYS    1 items HASH   2 claimed ZSET   3 scheduled ZSET   4 stalled SET   5 publishes STRING
        6 finishes STRING   7 published ZSET   8 config HASH   9 dead LIST   10 duplicates STRING
ARGV    none
RETURNS ready, scheduled, claimed, stalled, publishes, finishes, age of the oldest in ms (-1:
        none), the queue exists (0/1), it is paused (0/1), jobs on their way
        to the dead-letter exchange, duplicates left out
ERRORS  none   STATES unchanged   COST O(1) ]]
--- @include now
local all = redis.call('HLEN', KEYS[1])
local claimed = redis.call('ZCARD', KEYS[2])
local scheduled = redis.call('ZCARD', KEYS[3])
local stalled = redis.call('SCARD', KEYS[4])
local oldest = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')
return {
  math.max(0, all - claimed - scheduled - stalled), scheduled, claimed, stalled,
  tonumber(redis.call('GET', KEYS[5]) or 0), tonumber(redis.call('GET', KEYS[6]) or 0),
  oldest[2] and now() - oldest[2] or -1, redis.call('EXISTS', KEYS[8], KEYS[1]) > 0 and 1 or 0,
  redis.call('HEXISTS', KEYS[8], 'paused'), redis.call('LLEN', KEYS[9]),
  tonumber(redis.call('GET', KEYS[10]) or 0),
}
