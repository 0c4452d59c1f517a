--[[ sorted_feed/retract: take an item out of a sorted feed.
KEYS    1 config HASH   2 items HASH   3 next HASH   4 previous HASH   5 moves STRING
ARGV    1 id   2 channel   3 type
RETURNS id   ERRORS NOFEED, NOITEM   COST O(1) ]]
local following, previous, moves = KEYS[3], KEYS[4], KEYS[5]
--- @include links
--- @include another
local refusal = another(KEYS[1], ARGV[3], true)
if refusal then
  return refusal
end
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
unlink(ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[1])
return ARGV[1]
