--[[ exchange/bind: add a binding to an exchange's table.
A version that is new begins with the time: none ever comes a second time, so that a publisher's
table of long ago is not taken for the present one.
KEYS    1 bindings SET   2 version STRING
ARGV    1 member
RETURNS 1 if it is new, else 0   ERRORS none   COST O(1) ]]
--- @include now
local added = redis.call('SADD', KEYS[1], ARGV[1])
if added == 1 then
  redis.call('SET', KEYS[2], string.format('%.0f', now()), 'NX')
  redis.call('INCR', KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
return added
