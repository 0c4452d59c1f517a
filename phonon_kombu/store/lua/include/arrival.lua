--[[ arrived(task_id, index): whether this part of the chord has arrived before.
arrival(task_id, index): note that it arrives; whether that is for the first time.
Where indexes tell parts apart (`unique`) one bit each remembers them; a part that was added later,
or has no index of its own, is remembered by name.
Needs the locals `chord`, `seen` and `members`.
COST two commands, one more in a chord that has grown ]]
local function by_index(task_id, index)
  local found = redis.call('HMGET', chord, 'unique', 'grown')
  return found[1] and index ~= ''
    and not (found[2] and redis.call('SISMEMBER', members, '+' .. task_id) == 1)
end
local function arrived(task_id, index)
  if by_index(task_id, index) then
    return redis.call('GETBIT', seen, index) == 1
  end
  return redis.call('SISMEMBER', members, task_id .. ':' .. index) == 1
end
local function arrival(task_id, index)
  if by_index(task_id, index) then
    return redis.call('SETBIT', seen, index, 1) == 0
  end
  return redis.call('SADD', members, task_id .. ':' .. index) == 1
end
