--[[ model/adopt: become the closer of a record that nobody holds.
KEYS    1 row HASH   2 holders SET
ARGV    1 owner
RETURNS the record's id (JSON) if it is the caller's to complete, else nil
ERRORS  none   COST O(1) ]]
--- @include now
local id, closer = unpack(redis.call('HMGET', KEYS[1], '~id', '~closer'))
if not id or redis.call('EXISTS', KEYS[2]) == 1 or (closer and closer ~= ARGV[1]) then
  return false
end
redis.call('HSET', KEYS[1], '~closer', ARGV[1], '~since', now())
return id
