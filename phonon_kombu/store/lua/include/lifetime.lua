--[[ lifetime(reply): keys that this script has made end with the queue, if it lives for a time
only; nothing but job/touch prolongs its life. Returns `reply`.
Needs the local `config`; all KEYS are the queue's.
COST one command, with a lifetime one more for each key ]]
local function lifetime(reply)
  local left = redis.call('PTTL', config)
  if left > 0 then
    for i = 1, #KEYS do
      redis.call('PEXPIRE', KEYS[i], left)
    end
  end
  return reply
end
