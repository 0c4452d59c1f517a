--[[ sorted_feed/list_retract: sorted_feed/retract for a feed whose order is the contract's LIST.
KEYS    1 items HASH   2 ids LIST
ARGV    1 id   2 channel
RETURNS id   ERRORS NOITEM   COST O(n) ]]
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return redis.error_reply('NOITEM no item has this id')
end
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[1])
return ARGV[1]
