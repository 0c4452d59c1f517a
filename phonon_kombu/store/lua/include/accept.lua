--[[ accept(id, other_id, item): write a new job's item under its id, or under `other_id` if that
is another job's. Returns the id taken and whether it is new; nil if both are others'.
Needs the local `items`.
COST one command, up to four where the id is known ]]
local function accept(id, other_id, item)
  if redis.call('HSETNX', items, id, item) == 1 then
    return id, true
  end
  if redis.call('HGET', items, id) == item then
    return id, false
  end
  if other_id ~= '' then
    if redis.call('HSETNX', items, other_id, item) == 1 then
      return other_id, true
    end
    if redis.call('HGET', items, other_id) == item then
      return other_id, false
    end
  end
end
