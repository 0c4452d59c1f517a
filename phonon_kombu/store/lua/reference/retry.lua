--[[ reference/retry: a stalled holder goes on, on this node.
KEYS    1 holders HASH   2 stalled HASH
ARGV    1 holder   2 node
RETURNS holder   ERRORS NOTSTALLED   STATES stalled -> held   COST O(1) ]]
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOTSTALLED the holder is not stalled')
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[1]
