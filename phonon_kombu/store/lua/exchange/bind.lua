--[[ exchange/bind: add a binding to an exchange's table.
KEYS    1 bindings SET   2 version STRING
ARGV    1 member
RETURNS 1 if it is new, else 0   ERRORS none   COST O(1) ]]
local added = redis.call('SADD', KEYS[1], ARGV[1])
if added == 1 then
  redis.call('INCR', KEYS[2])
end
return added
