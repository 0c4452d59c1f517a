--[[ drop(ids, bodies, reason, at): forget jobs by a rule of their queue. Where it has a dead-letter
exchange they stay in its `dead` list, each as `<reason> <at> <length of the id> <id><item>`,
until somebody has put them there: the exchange's queues may lie in other slots.
Needs forget() and the locals `dead` (a key) and `lettered` (false: no dead-letter exchange).
COST as forget(), and one command ]]
local function drop(ids, bodies, reason, at)
  if lettered then
    local letters = {}
    for i, id in ipairs(ids) do
      letters[i] = string.format('%s %.0f %d ', reason, at, #id) .. id .. bodies[i]
    end
    redis.call('RPUSH', dead, unpack(letters))
  end
  forget(ids)
end
