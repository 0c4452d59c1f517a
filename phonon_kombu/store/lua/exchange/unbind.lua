--[[ exchange/unbind: drop bindings from an exchange's table.
The version stays for a day when the table is empty: a publisher that kept the last table notices,
and after that day by the lack of any version.
KEYS    1 bindings SET   2 version STRING
ARGV    1+ members
RETURNS how many there were   ERRORS none   COST O(members) ]]
--- @include now
local dropped = redis.call('SREM', KEYS[1], unpack(ARGV))
if dropped > 0 then
  redis.call('SET', KEYS[2], string.format('%.0f', now()), 'NX')
  redis.call('INCR', KEYS[2])
  if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('PEXPIRE', KEYS[2], 86400000)
  end
end
return dropped
