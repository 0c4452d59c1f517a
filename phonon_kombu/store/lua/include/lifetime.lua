--[[ lifetime: keys that this put has made end with the queue, if it lives for a time only.
A put is no use of the queue and does not prolong its life.
Needs the local `config`.
COST one command ]]
local left = redis.call('PTTL', config)
if left > 0 then
  for i = 1, #KEYS do
    redis.call('PEXPIRE', KEYS[i], left)
  end
end
