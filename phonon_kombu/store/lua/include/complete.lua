--[[ complete(token, at, lease_ms, group): if all parts of an open chord have arrived, make `token`
its closer until the lease ends (with '' its lease has ended already: anybody may take it).
Returns whether the chord was complete.
Needs the locals `chord` and `closing`.
COST one command, three more where it is complete ]]
local function complete(token, at, lease_ms, group)
  local found = redis.call('HMGET', chord, 'size', 'grown', 'arrived', 'state')
  if not found[1] or found[4] ~= 'open'
    or tonumber(found[3] or 0) < found[1] + (found[2] or 0) then
    return false
  end
  local ends = token == '' and at or at + lease_ms
  redis.call('HSET', chord, 'state', 'closing', 'closer', token, 'until', ends)
  redis.call('ZADD', closing, ends, group)
  return true
end
