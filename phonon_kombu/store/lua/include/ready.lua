--[[ ready(id, front): put a known job among the ready ones of its level, and leave a wake.
Needs the locals `priorities`, `wake` and `levels` (the ten ids lists, level 0 first).
COST three commands ]]
local function ready(id, front)
  local level = tonumber(redis.call('HGET', priorities, id) or 0)
  redis.call(front and 'RPUSH' or 'LPUSH', levels[level + 1], id)
  redis.call('ZADD', wake, 0, 'w')
end
