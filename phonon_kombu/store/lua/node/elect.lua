--[[ node/elect: be the one node that looks after the others, or learn when to ask again.
The office ends by itself after ttl_ms and is renewed by asking again. lock/release gives it back.
KEYS    1 lock STRING
ARGV    1 node   2 ttl_ms
RETURNS 0 if this node is elected, else for how many ms another one is (1 or more)
ERRORS  none   COST O(1) ]]
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 0
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 0
end
return math.max(1, redis.call('PTTL', KEYS[1]))
