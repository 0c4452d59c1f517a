--[[ sorted_feed/edit: another item in the place of one that is there.
KEYS    1 items HASH   2 publishes STRING
ARGV    1 id   2 item   3 channel
RETURNS id   ERRORS NOITEM   COST O(1) ]]
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('INCR', KEYS[2])
redis.call('PUBLISH', ARGV[3], ARGV[1] .. '\0' .. ARGV[2])
return ARGV[1]
