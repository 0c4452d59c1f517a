--[[ promote(at): make up to 100 scheduled jobs that are due at `at` (ms) ready, earliest first.
Needs ready() and the local `scheduled`.
COST one command when nothing is due ]]
local function promote(at)
  local due = redis.call('ZRANGEBYSCORE', scheduled, '-inf', at, 'LIMIT', 0, 100)
  if #due > 0 then
    -- First what is allowed without memory too: a script that has written may go on writing.
    redis.call('ZREM', scheduled, unpack(due))
  end
  for _, id in ipairs(due) do
    ready(id, false)
  end
  return #due
end
