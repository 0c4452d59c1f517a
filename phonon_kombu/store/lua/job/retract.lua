--[[ job/retract: delete a job, whatever state it is in, or only if nobody holds it.
KEYS    1 items HASH   2 claimed ZSET   3 stalled SET   4 published ZSET   5 cancelled HASH
        6 owners HASH   7 reasons HASH   8 scheduled ZSET   9 ghosts HASH   10 priorities HASH
        11 deadlines ZSET   12 config HASH
ARGV    1 id   2 waiting ('1': a claimed one is left alone)
RETURNS id, or nil if it was left alone   ERRORS NOTFOUND
STATES  ready, scheduled, claimed, stalled -> absent   COST O(log n) ]]
local items, published, cancelled = KEYS[1], KEYS[4], KEYS[5]
local priorities, deadlines, config = KEYS[10], KEYS[11], KEYS[12]
--- @include lifetime
--- @include forget
local id = ARGV[1]
if redis.call('HEXISTS', items, id) == 0 then
  return redis.error_reply('NOTFOUND no job has this id')
end
if ARGV[2] == '1' and redis.call('ZSCORE', KEYS[2], id) then
  return false
end
redis.call('HDEL', KEYS[6], id)
if redis.call('ZREM', KEYS[2], id) == 1 then
  -- its owner will find that out
elseif redis.call('SREM', KEYS[3], id) == 1 then
  redis.call('HDEL', KEYS[7], id)
elseif redis.call('ZREM', KEYS[8], id) == 0 then
  redis.call('HINCRBY', KEYS[9], id, 1)
  lifetime()
end
forget({ id })
return id
