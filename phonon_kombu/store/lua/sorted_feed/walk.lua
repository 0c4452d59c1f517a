--[[ sorted_feed/walk: a slice of the order of a sorted feed, from behind an id.
KEYS    1 next HASH   2 moves STRING
ARGV    1 after ('' to begin)   2 seen (the counter of moves at the first slice, '' to begin)
RETURNS the counter of moves, then ids; the empty id stands behind the last one. No ids if the order
        has changed since the first slice: the walk would lose its way
ERRORS  none   COST O(slice), a slice is at most 500 ids ]]
local moves = redis.call('GET', KEYS[2]) or '0'
local found = { moves }
if ARGV[2] ~= '' and ARGV[2] ~= moves then
  return found
end
local id = ARGV[1]
for i = 2, 501 do
  id = redis.call('HGET', KEYS[1], id) or ''
  found[i] = id
  if id == '' then
    break
  end
end
return found
