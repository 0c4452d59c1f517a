--[[ node/part: forget a node: it has said goodbye, or all that it held was given back.
KEYS    1 beats ZSET   2 presence HASH   3 about HASH   4 dying SET   5 held SET
ARGV    1 node
RETURNS 1   ERRORS none   COST O(log nodes) ]]
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('SREM', KEYS[4], ARGV[1])
redis.call('DEL', KEYS[5])
return 1
