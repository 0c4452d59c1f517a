--[[ arrival(task_id, index, state): whether this part of the chord arrives for the first time.
Where indexes tell parts apart (`unique`) one bit each remembers them; a part that was added later,
or has no index of its own, is remembered by name.
Needs the locals `chord`, `seen` and `members`.
COST two commands, one more in a chord that has grown ]]
local function arrival(task_id, index)
  local found = redis.call('HMGET', chord, 'unique', 'grown')
  if found[1] and index ~= ''
    and not (found[2] and redis.call('SISMEMBER', members, '+' .. task_id) == 1) then
    return redis.call('SETBIT', seen, index, 1) == 0
  end
  return redis.call('SADD', members, task_id .. ':' .. index) == 1
end
