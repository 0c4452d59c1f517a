--[[ job/shelve: add a job that is stalled from the beginning: job/retry lets it run.
The same id with the same item again is a no-op, as with job/put.
KEYS    1 config HASH   2 items HASH   3 stalled SET   4 reasons HASH   5 publishes STRING
        6 priorities HASH
ARGV    1 id   2 item   3 other_id ('' none)   4 level (0-9)   5 reason
        6 binding ('' none: else a field that config must have)
RETURNS the id taken   ERRORS EXISTS, UNBOUND   STATES absent -> stalled   COST O(1) ]]
local items, config = KEYS[2], KEYS[1]
--- @include accept
--- @include lifetime
if ARGV[6] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[6]) == 0 then
  return redis.error_reply('UNBOUND the queue is not bound to this exchange')
end
local id, new = accept(ARGV[1], ARGV[3], ARGV[2])
if not id then
  return redis.error_reply('EXISTS another job has this id')
end
if not new then
  return id
end
redis.call('SADD', KEYS[3], id)
redis.call('HSET', KEYS[4], id, ARGV[5])
redis.call('INCR', KEYS[5])
if ARGV[4] ~= '0' then
  redis.call('HSET', KEYS[6], id, ARGV[4])
end
return lifetime(id)
