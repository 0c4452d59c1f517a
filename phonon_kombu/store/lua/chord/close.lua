--[[ chord/close: the body has been published (or its failure stored): clear up, and remember for
a while that the chord is closed.
KEYS    1 chord HASH   2 arrived LIST   3 seen STRING   4 members SET   5 closing ZSET
        6 opened ZSET   7+ fields (of the aggregate, if there is one)
ARGV    1 group   2 token   3 remember_seconds
RETURNS 1, or 0 if another is closer by now   ERRORS none   STATES closing -> closed
COST    O(log opened), and the parts are freed aside ]]
local found = redis.call('HMGET', KEYS[1], 'state', 'closer')
if found[1] ~= 'closing' or found[2] ~= ARGV[2] then
  return 0
end
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], unpack(KEYS, 7))
redis.call('HSET', KEYS[1], 'state', 'closed')
redis.call('HDEL', KEYS[1], 'body', 'closer', 'until')
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
return 1
