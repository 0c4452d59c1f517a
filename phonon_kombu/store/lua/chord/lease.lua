--[[ chord/lease: keep the lease on closing a chord, or take one that has ended.
KEYS    1 chord HASH   2 closing ZSET
ARGV    1 group   2 token   3 lease_ms
RETURNS 0 it is the caller's, ms until the other's lease ends, or -1 if nothing is to be closed
ERRORS  none   STATES closing -> closing   COST O(log closing) ]]
--- @include now
local found = redis.call('HMGET', KEYS[1], 'state', 'closer', 'until')
if found[1] ~= 'closing' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return -1
end
local at = now()
if found[2] ~= ARGV[2] and at < tonumber(found[3]) then
  return math.max(1, found[3] - at)
end
redis.call('HSET', KEYS[1], 'closer', ARGV[2], 'until', at + ARGV[3])
redis.call('ZADD', KEYS[2], at + ARGV[3], ARGV[1])
return 0
