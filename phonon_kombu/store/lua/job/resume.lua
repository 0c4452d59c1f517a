--[[ job/resume: jobs of a paused queue may be claimed again. Leaves a wake if any wait.
KEYS    1 config HASH   2 items HASH   3 wake ZSET   4 scheduled ZSET
        5+ levels LIST (all ten, level 0 first)
ARGV    none
RETURNS 1, or 0 if it was not paused, -1 if there is no such queue
ERRORS  none   STATES unchanged   COST O(1) ]]
if redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then
  return -1
end
local config = KEYS[1]
--- @include lifetime
local resumed = redis.call('HDEL', KEYS[1], 'paused')
-- Also where it was not paused: a repeated resume whose first reply was lost wakes as well.
if redis.call('EXISTS', unpack(KEYS, 4)) > 0 then
  redis.call('ZADD', KEYS[3], 0, 'w')
  lifetime()
end
return resumed
