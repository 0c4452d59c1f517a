--[[ node/beat: this node lives.
A node that was declared dead does not come back by a beat: it must join again.
KEYS    1 beats ZSET   2 presence HASH   3 about HASH   4 dying ZSET
ARGV    1 node   2 presence ('' unchanged; which connection shows that it lives)
        3 about ('' unchanged; JSON)   4 joining ('1': it may be new)
RETURNS how many nodes there are (0: this one was declared dead), how many are being recovered,
        the time, ms
ERRORS  none   COST O(log nodes) ]]
--- @include now
local at = now()
if ARGV[4] == '1' then
  redis.call('ZADD', KEYS[1], at, ARGV[1])
  -- What was not given back yet stays its own.
  redis.call('ZREM', KEYS[4], ARGV[1])
elseif redis.call('ZADD', KEYS[1], 'XX', 'CH', at, ARGV[1]) == 0
  and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return { 0, redis.call('ZCARD', KEYS[4]), at }
end
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
end
return { redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[4]), at }
