--[[ queue/put: add an item to a simple queue.
The same id with the same item again is a no-op, so a put whose reply was lost can be repeated.
KEYS    1 config HASH   2 items HASH   3 ids LIST   4 publishes STRING   5 wake ZSET
ARGV    1 id   2 item   3 front ('1': before all others)   4 type
RETURNS id   ERRORS NOFEED, EXISTS   STATES absent -> ready   COST O(1) ]]
--- @include another
local refusal = another(KEYS[1], ARGV[4], false)
if refusal then
  return refusal
end
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then
  if redis.call('HGET', KEYS[2], ARGV[1]) == ARGV[2] then
    return ARGV[1]
  end
  return redis.error_reply('EXISTS another item has this id')
end
redis.call(ARGV[3] == '1' and 'RPUSH' or 'LPUSH', KEYS[3], ARGV[1])
redis.call('INCR', KEYS[4])
redis.call('ZADD', KEYS[5], 0, 'w')
return ARGV[1]
