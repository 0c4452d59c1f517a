--[[ sorted_feed/edit: another item in the place of one that is there.
KEYS    1 config HASH   2 items HASH   3 publishes STRING
ARGV    1 id   2 item   3 channel   4 type
RETURNS id   ERRORS NOFEED, NOITEM   COST O(1) ]]
--- @include another
local refusal = another(KEYS[1], ARGV[4])
if refusal then
  return refusal
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('INCR', KEYS[3])
redis.call('PUBLISH', ARGV[3], ARGV[1] .. '\0' .. ARGV[2])
return ARGV[1]
