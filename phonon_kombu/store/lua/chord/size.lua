--[[ chord/size: how many parts a chord has, known when the last of them is about to be sent, or
later still.
KEYS    1 chord HASH   2 closing ZSET
ARGV    1 group   2 size
RETURNS 1 if all had arrived before (any worker closes it), 0 if not, -1 if there is no such chord
ERRORS  none   STATES open -> open, closing   COST O(log closing) ]]
--- @include now
local chord, closing = KEYS[1], KEYS[2]
--- @include complete
if redis.call('EXISTS', chord) == 0 then
  return -1
end
redis.call('HSET', chord, 'size', ARGV[2])
return complete('', now(), 0, ARGV[1]) and 1 or 0
