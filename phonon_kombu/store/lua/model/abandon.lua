--[[ model/abandon: a dead owner lets go of a record, as holder and as closer.
KEYS    1 row HASH   2 holders SET
ARGV    1 owner
RETURNS 1 if there is an aggregate that nobody holds, else 0   ERRORS none   COST O(1) ]]
redis.call('SREM', KEYS[2], ARGV[1])
local closer = redis.call('HGET', KEYS[1], '~closer')
if closer == ARGV[1] then
  redis.call('HDEL', KEYS[1], '~closer')
  closer = false
end
if closer or redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
return redis.call('EXISTS', KEYS[1])
