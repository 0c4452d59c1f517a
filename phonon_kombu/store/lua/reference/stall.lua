--[[ reference/stall: a holder cannot go on. It keeps its hold, whatever becomes of its node, until
somebody lets it go on.
KEYS    1 holders HASH   2 stalled HASH
ARGV    1 holder   2 node   3 reason
RETURNS holder   ERRORS NOTHELD   STATES held, stalled -> stalled   COST O(1) ]]
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  return ARGV[1]
end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return redis.error_reply('NOTHELD the holder does not hold it on this node')
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return ARGV[1]
