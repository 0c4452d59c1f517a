--[[ job/stall: take a job out of the running without deleting it.
KEYS    1 items HASH   2 claimed ZSET   3 stalled SET   4 published ZSET   5 cancelled HASH
        6 owners HASH   7 reasons HASH   8 scheduled ZSET   9 ghosts HASH   10 deadlines ZSET
        11 config HASH
ARGV    1 id   2 reason   3 owner ('' whatever state it is in: else only if this owner holds it)
        4 channel (none, or '': it is not announced)
        5 waiting ('1': a claimed one is left alone)
RETURNS id, or nil if it was left alone   ERRORS NOTFOUND, NOTCLAIMED
STATES  ready, scheduled, claimed -> stalled   COST O(log n) ]]
local id, config = ARGV[1], KEYS[11]
--- @include lifetime
if redis.call('HEXISTS', KEYS[1], id) == 0 then
  return redis.error_reply('NOTFOUND no job has this id')
end
if ARGV[3] ~= '' and redis.call('HGET', KEYS[6], id) ~= ARGV[3] then
  return redis.error_reply('NOTCLAIMED the job is not claimed by the caller')
end
if ARGV[5] == '1' and redis.call('ZSCORE', KEYS[2], id) then
  return false
end
if redis.call('SADD', KEYS[3], id) == 0 then
  return id
end
if redis.call('ZREM', KEYS[2], id) == 1 then
  redis.call('HDEL', KEYS[6], id)
elseif redis.call('ZREM', KEYS[8], id) == 0 then
  -- It is ready. Finding it in its list would take time with the length of the queue: its entry
  -- is counted as a ghost instead and left out when it is reached.
  redis.call('HINCRBY', KEYS[9], id, 1)
end
redis.call('HSET', KEYS[7], id, ARGV[2])
redis.call('ZREM', KEYS[4], id)
redis.call('HDEL', KEYS[5], id)
-- It waits for somebody to look at it, and then it may run.
redis.call('ZREM', KEYS[10], id)
lifetime()
if (ARGV[4] or '') ~= '' then
  redis.call('PUBLISH', ARGV[4], id .. '\0' .. ARGV[2])
end
return id
