--[[ feed/retract: take an item out of a feed.
KEYS    1 config HASH   2 ids ZSET   3 items HASH
ARGV    1 id   2 channel   3 type
RETURNS id   ERRORS NOFEED, NOITEM   COST O(log n) ]]
--- @include another
local refusal = another(KEYS[1], ARGV[3], false)
if refusal then
  return refusal
end
local known = redis.call('HDEL', KEYS[3], ARGV[1])
if redis.call('ZREM', KEYS[2], ARGV[1]) + known == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
redis.call('PUBLISH', ARGV[2], ARGV[1])
return ARGV[1]
