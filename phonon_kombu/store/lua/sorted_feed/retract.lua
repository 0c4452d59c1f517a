--[[ sorted_feed/retract: take an item out of a sorted feed.
KEYS    1 items HASH   2 next HASH   3 previous HASH   4 moves STRING
ARGV    1 id   2 channel
RETURNS id   ERRORS NOITEM   COST O(1) ]]
local following, previous, moves = KEYS[2], KEYS[3], KEYS[4]
--- @include links
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
unlink(ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[1])
return ARGV[1]
