--[[ node/census: who beats, who is overdue, who is still to be recovered.
KEYS    1 beats ZSET   2 presence HASH   3 dying ZSET
ARGV    1 ttl_ms
RETURNS nodes whose last beat is older than ttl_ms, presence of all as field, value, ..., nodes
        to be recovered with when they were declared dead (ms) as node, ms, ..., the time, ms
ERRORS  none   COST O(nodes) ]]
--- @include now
local at = now()
return {
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', at - ARGV[1], 'LIMIT', 0, 100),
  redis.call('HGETALL', KEYS[2]),
  redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', at, 'WITHSCORES', 'LIMIT', 0, 100),
  at,
}
