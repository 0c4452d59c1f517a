--[[ node/bury: declare a node dead, unless it has given a sign of life since it was judged.
KEYS    1 beats ZSET   2 presence HASH   3 dying ZSET (by when it was declared dead, ms)
ARGV    1 node   2 presence ('' judged by its beat: else what it showed when it was judged)
        3 ttl_ms (its beat must be older, where it is judged by that)
RETURNS when it was declared dead (ms), or 0 if it lives   ERRORS none   COST O(log nodes) ]]
--- @include now
local beat = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not beat then
  return 0
end
local at = now()
if ARGV[2] == '' then
  if tonumber(beat) > at - ARGV[3] then
    return 0
  end
elseif redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], at, ARGV[1])
return at
