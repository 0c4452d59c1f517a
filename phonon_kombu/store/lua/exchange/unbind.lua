--[[ exchange/unbind: drop bindings from an exchange's table.
The version stays when the table is empty: a publisher that cached the last table must notice.
KEYS    1 bindings SET   2 version STRING
ARGV    1+ members
RETURNS how many there were   ERRORS none   COST O(members) ]]
local dropped = redis.call('SREM', KEYS[1], unpack(ARGV))
if dropped > 0 then
  redis.call('INCR', KEYS[2])
end
return dropped
