--[[ node/part: forget a node: it has said goodbye, or all that it held was given back.
One that was declared dead and has joined again since is not forgotten, nor is one that holds what
it has claimed since: it is looked at again.
KEYS    1 beats ZSET   2 presence HASH   3 about HASH   4 dying ZSET   5 held SET
ARGV    1 node   2 dead_ms ('' goodbye: else when it was declared dead)
        3 again_ms ('' forget it: else it is dead again after so long, unless it joins)
RETURNS 1, or 0 if it was not forgotten   ERRORS none   COST O(log nodes) ]]
--- @include now
if ARGV[2] ~= '' and redis.call('ZSCORE', KEYS[4], ARGV[1]) ~= ARGV[2] then
  return 0
end
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[4], now() + ARGV[3], ARGV[1])
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('DEL', KEYS[5])
return 1
