--[[ lock/extend: keep a lock for longer, if it is still ours.
KEYS    1 lock STRING
ARGV    1 token   2 ttl_ms (from now)
RETURNS 1, or 0 if it was not ours   ERRORS none   COST O(1) ]]
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
