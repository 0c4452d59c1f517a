--[[ job/resolve: finish a job with a result, kept for a time and announced.
KEYS    1 claimed ZSET   2 items HASH   3 published ZSET   4 cancelled HASH   5 owners HASH
        6 finishes STRING   7 priorities HASH   8 deadlines ZSET   9 result HASH
ARGV    1 id   2 owner ('' whoever holds it)   3 result   4 keep_ms ('' for ever)   5 channel
RETURNS id   ERRORS NOTCLAIMED   STATES claimed -> absent   COST O(log n) ]]
local items, published, cancelled = KEYS[2], KEYS[3], KEYS[4]
local priorities, deadlines = KEYS[7], KEYS[8]
local id = ARGV[1]
if not redis.call('ZSCORE', KEYS[1], id)
  or (ARGV[2] ~= '' and redis.call('HGET', KEYS[5], id) ~= ARGV[2]) then
  return redis.error_reply('NOTCLAIMED the job is not claimed by the caller')
end
--- @include forget
redis.call('DEL', KEYS[9])
redis.call('ZREM', KEYS[1], id)
redis.call('HSET', KEYS[9], 'query', redis.call('HGET', items, id) or '', 'result', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('PEXPIRE', KEYS[9], ARGV[4])
end
redis.call('HDEL', KEYS[5], id)
forget({ id })
redis.call('INCR', KEYS[6])
redis.call('PUBLISH', ARGV[5], id .. '\0' .. ARGV[3])
return id
