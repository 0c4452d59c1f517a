--[[ feed/create: make a feed, of whatever type, and announce it.
KEYS    1 config HASH
ARGV    1 channel   2 message   3 exclusive ('1': refuse one that exists)   4 type
        5+ fields and values
RETURNS 1 if it is new, else 0; then its type, order, serializer as they are now
ERRORS  FEEDEXISTS   COST O(fields) ]]
local new = redis.call('HSETNX', KEYS[1], 'type', ARGV[4])
if new == 0 and ARGV[3] == '1' then
  return redis.error_reply('FEEDEXISTS there is a feed of this name')
end
if new == 1 then
  if #ARGV > 4 then
    redis.call('HSET', KEYS[1], unpack(ARGV, 5))
  end
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
local now = redis.call('HMGET', KEYS[1], 'type', 'order', 'serializer')
return { new, now[1] or '', now[2] or '', now[3] or '' }
