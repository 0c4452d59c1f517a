--[[ lock/acquire: take a lock, or keep it for longer if it is ours. It always has an end.
KEYS    1 lock STRING
ARGV    1 token   2 ttl_ms
RETURNS 1 if the lock is ours, else 0   ERRORS none   COST O(1) ]]
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 1
end
return 0
