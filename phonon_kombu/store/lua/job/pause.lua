--[[ job/pause: nobody claims from this queue until job/resume. Puts and finishes go on.
KEYS    1 config HASH   2 items HASH   3 wake ZSET
ARGV    none
RETURNS 1, or 0 if it was paused already, -1 if there is no such queue
ERRORS  none   STATES unchanged   COST O(1) ]]
if redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then
  return -1
end
redis.call('DEL', KEYS[3])
return redis.call('HSETNX', KEYS[1], 'paused', 1)
