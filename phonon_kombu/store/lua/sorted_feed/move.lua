--[[ sorted_feed/move: move an item to another place in a sorted feed.
KEYS    1 items HASH   2 next HASH   3 previous HASH   4 moves STRING
ARGV    1 id   2 where ('begin', 'end', 'before', 'after')   3 reference   4 channel   5 position
RETURNS 1, or 0 if it was to be moved next to itself   ERRORS NOITEM   COST O(1) ]]
local following, previous, moves = KEYS[2], KEYS[3], KEYS[4]
--- @include links
local relative = ARGV[2] == 'before' or ARGV[2] == 'after'
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
if relative and redis.call('HEXISTS', KEYS[1], ARGV[3]) == 0 then
  return redis.error_reply('NOITEM no item has the id to move to')
end
if relative and ARGV[1] == ARGV[3] then
  return 0
end
unlink(ARGV[1])
link(ARGV[1], ARGV[2], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[1] .. '\0' .. ARGV[5])
return 1
