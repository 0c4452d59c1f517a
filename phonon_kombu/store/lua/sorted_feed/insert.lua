--[[ sorted_feed/insert: a new item at a place in a sorted feed.
A given id with the same item again is a no-op, so an insert whose reply was lost can be repeated.
KEYS    1 config HASH   2 items HASH   3 next HASH   4 previous HASH   5 moves STRING
        6 idincr STRING   7 publishes STRING
ARGV    1 id ('' a new one is made)   2 item   3 where ('begin', 'end', 'before', 'after')
        4 reference   5 publish_channel   6 position_channel   7 position
        8 type
RETURNS id   ERRORS NOFEED, NOITEM, EXISTS   COST O(1) ]]
local items, following, previous, moves = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
--- @include links
--- @include place
--- @include another
local refusal = another(KEYS[1], ARGV[8], true)
if refusal then
  return refusal
end
local id, new = place(KEYS[6])
if not new then
  return id
end
redis.call('HSET', items, id, ARGV[2])
link(id, ARGV[3], ARGV[4])
redis.call('INCR', KEYS[7])
redis.call('PUBLISH', ARGV[5], id .. '\0' .. ARGV[2])
redis.call('PUBLISH', ARGV[6], id .. '\0' .. ARGV[7])
return id
