--[[ job/resolve: finish a job with a result, kept for a time and announced.
As job/finish, also one that was taken from its owner and that nobody has taken since.
KEYS    1 claimed ZSET   2 items HASH   3 published ZSET   4 cancelled HASH   5 owners HASH
        6 finishes STRING   7 priorities HASH   8 deadlines ZSET   9 result HASH   10 ghosts HASH
        11 config HASH
ARGV    1 id   2 owner ('' whoever holds it)   3 result   4 keep_ms ('' for ever)   5 channel
RETURNS id   ERRORS NOTCLAIMED   STATES claimed -> absent, ready -> absent   COST O(log n) ]]
local claimed, items, published, cancelled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local priorities, deadlines = KEYS[7], KEYS[8]
local id = ARGV[1]
--- @include late
local held_by = redis.call('HGET', KEYS[5], id)
local late = is_late(id, held_by, ARGV[2])
if not late and (not redis.call('ZSCORE', claimed, id)
  or (ARGV[2] ~= '' and held_by ~= ARGV[2])) then
  return redis.error_reply('NOTCLAIMED the job is not claimed by the caller')
end
--- @include forget
redis.call('DEL', KEYS[9])
redis.call('ZREM', claimed, id)
if late then
  redis.call('HINCRBY', KEYS[10], id, 1)
end
redis.call('HSET', KEYS[9], 'query', redis.call('HGET', items, id) or '', 'result', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('PEXPIRE', KEYS[9], ARGV[4])
end
redis.call('HDEL', KEYS[5], id)
forget({ id })
redis.call('INCR', KEYS[6])
-- They end with a queue that lives for a time only; the result has an end of its own.
local left = redis.call('PTTL', KEYS[11])
if left > 0 then
  redis.call('PEXPIRE', KEYS[6], left)
  redis.call('PEXPIRE', KEYS[10], left)
end
redis.call('PUBLISH', ARGV[5], id .. '\0' .. ARGV[3])
return id
