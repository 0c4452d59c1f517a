--[[ job/touch: a queue with a lifetime is in use, its keys live on for another lifetime.
KEYS    1 config HASH   2+ parts (all other keys of the queue)
ARGV    none
RETURNS lifetime in ms (0: the queue has none)   ERRORS none   STATES unchanged   COST O(1) ]]
local expires = redis.call('HGET', KEYS[1], 'expires')
if not expires then
  -- It may have had one when it was declared before.
  for _, key in ipairs(KEYS) do
    redis.call('PERSIST', key)
  end
  return 0
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, expires)
end
return tonumber(expires)
