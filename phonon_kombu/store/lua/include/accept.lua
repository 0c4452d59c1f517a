--[[ accept(id, other_id, item): write a new job's item under its id, or under `other_id` if that
is another job's. An `other_id` that ends in '~' is numbered, 1 to 16, so that job/lookup finds all
jobs of a task by its id; after these it gets a digest. Returns the id taken and whether it is new;
nil if all are others'.
Needs the local `items`.
COST one command, up to four where the id is known, more where a task is there many times ]]
local function accept(id, other_id, item)
  local function try(name)
    if redis.call('HSETNX', items, name, item) == 1 then
      return name, true
    end
    if redis.call('HGET', items, name) == item then
      return name, false
    end
  end
  local taken, new = try(id)
  if taken or other_id == '' then
    return taken, new
  end
  if string.sub(other_id, -1) ~= '~' then
    return try(other_id)
  end
  for n = 1, 16 do
    taken, new = try(other_id .. n)
    if taken then
      return taken, new
    end
  end
  return try(other_id .. redis.sha1hex(item))
end
