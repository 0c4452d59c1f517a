--[[ sorted_feed/list_insert: sorted_feed/insert for a feed whose order is the contract's LIST.
KEYS    1 config HASH   2 items HASH   3 ids LIST   4 idincr STRING   5 publishes STRING
ARGV    1 id ('' a new one is made)   2 item   3 where ('begin', 'end', 'before', 'after')
        4 reference   5 publish_channel   6 position_channel   7 position
        8 type
RETURNS id   ERRORS NOFEED, NOITEM, EXISTS   COST O(n) before or after an id, else O(1) ]]
local items = KEYS[2]
--- @include place
--- @include another
local refusal = another(KEYS[1], ARGV[8], false)
if refusal then
  return refusal
end
local id, new = place(KEYS[4])
if not new then
  return id
end
redis.call('HSET', items, id, ARGV[2])
if ARGV[3] == 'begin' then
  redis.call('LPUSH', KEYS[3], id)
elseif ARGV[3] == 'end' then
  redis.call('RPUSH', KEYS[3], id)
elseif redis.call('LINSERT', KEYS[3], ARGV[3], ARGV[4], id) < 0 then
  -- A peer has left the other one out of the list.
  redis.call('RPUSH', KEYS[3], id)
end
redis.call('INCR', KEYS[5])
redis.call('PUBLISH', ARGV[5], id .. '\0' .. ARGV[2])
redis.call('PUBLISH', ARGV[6], id .. '\0' .. ARGV[7])
return id
