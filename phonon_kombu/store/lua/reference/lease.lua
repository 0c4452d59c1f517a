--[[ reference/lease: keep the closer's lease, or take one that has ended.
KEYS    1 about HASH
ARGV    1 token   2 lease_ms
RETURNS 0 it is the caller's, ms until the other's ends, or -1 if there is no closer
ERRORS  none   COST O(1) ]]
--- @include now
local found = redis.call('HMGET', KEYS[1], 'closer', 'until')
if not found[1] then
  return -1
end
local at = now()
if found[1] ~= ARGV[1] and at < tonumber(found[2]) then
  return math.max(1, found[2] - at)
end
redis.call('HSET', KEYS[1], 'closer', ARGV[1], 'until', at + ARGV[2])
return 0
