--[[ feed/trim: retract the oldest items above `max_length`, 100 at the most.
KEYS    1 config HASH   2 ids ZSET   3 items HASH
ARGV    1 retract_channel
RETURNS how many items are too many still   ERRORS none
COST    O(log n), bounded: at most 100 items are trimmed ]]
local ids, items, retract_channel = KEYS[2], KEYS[3], ARGV[1]
--- @include trim
local limit = tonumber(redis.call('HGET', KEYS[1], 'max_length')) or 0
local excess = limit > 0 and redis.call('ZCARD', ids) - limit or 0
if excess > 0 then
  return trim(excess)
end
return 0
