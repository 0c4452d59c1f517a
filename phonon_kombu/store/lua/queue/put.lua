--[[ queue/put: add an item to a simple queue.
The same id with the same item again is a no-op, so a put whose reply was lost can be repeated.
KEYS    1 items HASH   2 ids LIST   3 publishes STRING   4 wake ZSET
ARGV    1 id   2 item   3 front ('1': before all others)
RETURNS id   ERRORS EXISTS   STATES absent -> ready   COST O(1) ]]
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
    return ARGV[1]
  end
  return redis.error_reply('EXISTS another item has this id')
end
redis.call(ARGV[3] == '1' and 'RPUSH' or 'LPUSH', KEYS[2], ARGV[1])
redis.call('INCR', KEYS[3])
redis.call('ZADD', KEYS[4], 0, 'w')
return ARGV[1]
