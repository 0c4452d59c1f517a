--[[ feed/retract: take an item out of a feed.
KEYS    1 ids ZSET   2 items HASH
ARGV    1 id   2 channel
RETURNS id   ERRORS NOITEM   COST O(log n) ]]
local known = redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('ZREM', KEYS[1], ARGV[1]) + known == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
redis.call('PUBLISH', ARGV[2], ARGV[1])
return ARGV[1]
