--[[ sorted_feed/list_retract: sorted_feed/retract for a feed whose order is the contract's LIST.
KEYS    1 config HASH   2 items HASH   3 ids LIST
ARGV    1 id   2 channel   3 type
RETURNS id   ERRORS NOFEED, NOITEM   COST O(n) ]]
--- @include another
local refusal = another(KEYS[1], ARGV[3], false)
if refusal then
  return refusal
end
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
redis.call('LREM', KEYS[3], 0, ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[1])
return ARGV[1]
