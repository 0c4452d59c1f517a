--[[ feed/publish: put an item at the end of a feed; a known id is edited and moves to the end.
The oldest items above `max_length` go first, 100 at the most.
KEYS    1 config HASH   2 ids ZSET   3 items HASH   4 publishes STRING
ARGV    1 id   2 item   3 publish_channel   4 edit_channel   5 retract_channel   6 type
RETURNS 1 if the id is new, else 0; how many items are too many still
ERRORS  NOFEED   COST O(log n), bounded: at most 100 items are trimmed ]]
local ids, items, retract_channel = KEYS[2], KEYS[3], ARGV[5]
--- @include trim
--- @include another
local refusal = another(KEYS[1], ARGV[6], false)
if refusal then
  return refusal
end
-- Milliseconds as the contract has them, with a fraction: the order of two publishes must not
-- depend on the clock's resolution, nor on a clock that was set back.
local time = redis.call('TIME')
local score = time[1] * 1000 + time[2] / 1000
local last = tonumber(redis.call('ZREVRANGE', ids, 0, 0, 'WITHSCORES')[2])
if last and score <= last then
  score = last + math.max(1 / 2048, math.abs(last) * 2 ^ -52)
end
local limit = tonumber(redis.call('HGET', KEYS[1], 'max_length')) or 0
local size = redis.call('ZCARD', ids)
local new = redis.call('HSET', items, ARGV[1], ARGV[2])
local excess = limit > 0 and math.max(size + new - limit, 0) or 0
if excess > 0 and new == 1 then
  excess = trim(excess)
end
redis.call('ZADD', ids, string.format('%.17g', score), ARGV[1])
redis.call('INCR', KEYS[4])
redis.call('PUBLISH', new == 1 and ARGV[3] or ARGV[4], ARGV[1] .. '\0' .. ARGV[2])
return { new, excess }
