--[[ lock/release: give a lock back, if it is still ours.
KEYS    1 lock STRING
ARGV    1 token
RETURNS 1, or 0 if it was not ours   ERRORS none   COST O(1) ]]
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
