--[[ ready(id, front, stay, staying): put a known job among the ready ones of its level, and leave a
wake. In `front`, but behind those of the `staying` jobs in the set `stay` that stand there.
Needs the locals `priorities`, `wake` and `levels` (the ten ids lists, level 0 first).
COST three commands, one more and O(staying) with such jobs ]]
local function ready(id, front, stay, staying)
  local level = tonumber(redis.call('HGET', priorities, id) or 0)
  local list = levels[level + 1]
  if staying and staying > 0 then
    local taken = redis.call('RPOP', list, staying) or {}
    local before = 0
    while stay[taken[before + 1]] do
      before = before + 1
    end
    table.insert(taken, before + 1, id)
    local back = {}
    for i = #taken, 1, -1 do
      back[#back + 1] = taken[i]
    end
    redis.call('RPUSH', list, unpack(back))
  else
    redis.call(front and 'RPUSH' or 'LPUSH', list, id)
  end
  redis.call('ZADD', wake, 0, 'w')
end
