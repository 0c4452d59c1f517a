--[[ feed/delete: delete a feed, of whatever type, with all that is in it, and announce it.
The server frees the memory in the background.
KEYS    1 config HASH   2+ parts (all of them)
ARGV    1 channel   2 message
RETURNS how many keys there were   ERRORS NOFEED   COST O(1) ]]
if redis.call('HEXISTS', KEYS[1], 'type') == 0 then
  return redis.error_reply('NOFEED there is no feed of this name')
end
local gone = redis.call('UNLINK', unpack(KEYS, 2))
redis.call('PUBLISH', ARGV[1], ARGV[2])
return gone
