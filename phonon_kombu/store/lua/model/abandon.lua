--[[ model/abandon: a dead owner lets go of a record, as holder and as closer.
One that became closer after it was declared dead lives: it is completing the record.
KEYS    1 row HASH   2 holders SET
ARGV    1 owner   2 dead_ms (when it was declared dead)
RETURNS 1 if there is an aggregate that nobody holds, 2 if the owner is closer since then, else 0
ERRORS  none   COST O(1) ]]
redis.call('SREM', KEYS[2], ARGV[1])
local closer, since = unpack(redis.call('HMGET', KEYS[1], '~closer', '~since'))
if closer == ARGV[1] then
  if tonumber(since or 0) >= tonumber(ARGV[2]) then
    return 2
  end
  redis.call('HDEL', KEYS[1], '~closer')
  closer = false
end
if closer or redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
return redis.call('EXISTS', KEYS[1])
