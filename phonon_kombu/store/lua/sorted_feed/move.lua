--[[ sorted_feed/move: move an item to another place in a sorted feed.
KEYS    1 config HASH   2 items HASH   3 next HASH   4 previous HASH   5 moves STRING
ARGV    1 id   2 where ('begin', 'end', 'before', 'after')   3 reference   4 channel   5 position
        6 type
RETURNS 1, or 0 if it was to be moved next to itself   ERRORS NOFEED, NOITEM   COST O(1) ]]
local following, previous, moves = KEYS[3], KEYS[4], KEYS[5]
--- @include links
--- @include another
local refusal = another(KEYS[1], ARGV[6], true)
if refusal then
  return refusal
end
local relative = ARGV[2] == 'before' or ARGV[2] == 'after'
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
if relative and redis.call('HEXISTS', KEYS[2], ARGV[3]) == 0 then
  return redis.error_reply('NOITEM no item has the id to move to')
end
if relative and ARGV[1] == ARGV[3] then
  return 0
end
unlink(ARGV[1])
link(ARGV[1], ARGV[2], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[1] .. '\0' .. ARGV[5])
return 1
