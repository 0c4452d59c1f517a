--[[ sorted_feed/list_move: sorted_feed/move for a feed whose order is the contract's LIST.
KEYS    1 config HASH   2 items HASH   3 ids LIST
ARGV    1 id   2 where ('begin', 'end', 'before', 'after')   3 reference   4 channel   5 position
        6 type
RETURNS 1, or 0 if it was to be moved next to itself   ERRORS NOFEED, NOITEM   COST O(n) ]]
--- @include another
local refusal = another(KEYS[1], ARGV[6], false)
if refusal then
  return refusal
end
local relative = ARGV[2] == 'before' or ARGV[2] == 'after'
local item = redis.call('HGET', KEYS[2], ARGV[1])
if not item then
  return redis.error_reply('NOITEM no item has this id')
end
if relative and redis.call('HEXISTS', KEYS[2], ARGV[3]) == 0 then
  return redis.error_reply('NOITEM no item has the id to move to')
end
if relative and ARGV[1] == ARGV[3] then
  return 0
end
-- First what a server without memory refuses: nothing may be gone by then.
redis.call('HSET', KEYS[2], ARGV[1], item)
redis.call('LREM', KEYS[3], 0, ARGV[1])
if ARGV[2] == 'begin' then
  redis.call('LPUSH', KEYS[3], ARGV[1])
elseif ARGV[2] == 'end' then
  redis.call('RPUSH', KEYS[3], ARGV[1])
elseif redis.call('LINSERT', KEYS[3], ARGV[2], ARGV[3], ARGV[1]) < 0 then
  -- A peer has left the other one out of the list.
  redis.call('RPUSH', KEYS[3], ARGV[1])
end
redis.call('PUBLISH', ARGV[4], ARGV[1] .. '\0' .. ARGV[5])
return 1
