--[[ feed/configure: set fields of a feed's configuration and announce it.
KEYS    1 config HASH
ARGV    1 channel   2 message   3+ fields and values
RETURNS how many fields are new   ERRORS NOFEED, FIXED   COST O(fields) ]]
if redis.call('HEXISTS', KEYS[1], 'type') == 0 then
  return redis.error_reply('NOFEED there is no feed of this name')
end
-- What decides how the items are kept stays as it was when the feed was made.
local fixed = { type = true, order = true, serializer = true }
for i = 3, #ARGV, 2 do
  if fixed[ARGV[i]] and (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then
    return redis.error_reply('FIXED the type, order and serializer of a feed cannot be changed')
  end
end
local new = redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PUBLISH', ARGV[1], ARGV[2])
return new
