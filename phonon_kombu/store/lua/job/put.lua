--[[ job/put: add a job, ready at once or scheduled.
The same id with the same item again is a no-op, so a put whose reply was lost can be repeated.
If another job has the id, `other_id` is taken instead where one is given.
KEYS    1 config HASH   2 items HASH   3 ids LIST   4 published ZSET   5 publishes STRING
        6 wake ZSET   7 scheduled ZSET   8 priorities HASH   9 deadlines ZSET
ARGV    1 id   2 item   3 other_id ('' none)   4 level (0-9; KEYS 3 is its list)
        5 front ('1': before all others)   6 due_ms (from now, '' ready)   7 ttl_ms ('' none)
        8 binding ('' none: else a field that config must have)
RETURNS the id taken   ERRORS EXISTS, UNBOUND   STATES absent -> ready, scheduled   COST O(log n) ]]
--- @include now
local items, config = KEYS[2], KEYS[1]
--- @include accept
if ARGV[8] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[8]) == 0 then
  return redis.error_reply('UNBOUND the queue is not bound to this exchange')
end
local id, new = accept(ARGV[1], ARGV[3], ARGV[2])
if not id then
  return redis.error_reply('EXISTS another job has this id')
end
if not new then
  return id
end
local at = now()
redis.call('ZADD', KEYS[4], at, id)
redis.call('INCR', KEYS[5])
if ARGV[4] ~= '0' then
  redis.call('HSET', KEYS[8], id, ARGV[4])
end
if ARGV[7] ~= '' then
  redis.call('ZADD', KEYS[9], at + ARGV[7], id)
end
if ARGV[6] ~= '' and tonumber(ARGV[6]) > 0 then
  redis.call('ZADD', KEYS[7], at + ARGV[6], id)
  -- Whoever waits must learn of an earlier end of its wait.
  if redis.call('ZRANGE', KEYS[7], 0, 0)[1] == id then
    redis.call('ZADD', KEYS[6], 0, 'w')
  end
else
  redis.call(ARGV[5] == '1' and 'RPUSH' or 'LPUSH', KEYS[3], id)
  redis.call('ZADD', KEYS[6], 0, 'w')
end
--- @include lifetime
return id
