--[[ place(counter): the id of an item that is to be inserted into a sorted feed, and whether it is
new; or a refusal: no such reference, another item has the id.
Needs the local `items` and the ARGV of sorted_feed/insert.
COST two commands; one more for each made id that somebody has given to an item, at most 1000 ]]
local function place(counter)
  if (ARGV[3] == 'before' or ARGV[3] == 'after')
    and redis.call('HEXISTS', items, ARGV[4]) == 0 then
    return redis.error_reply('NOITEM no item has the id to insert at')
  end
  if ARGV[1] ~= '' then
    local known = redis.call('HGET', items, ARGV[1])
    if known and known ~= ARGV[2] then
      return redis.error_reply('EXISTS another item has this id')
    end
    return ARGV[1], not known
  end
  for _ = 1, 1000 do
    local id = string.format('%d', redis.call('INCR', counter))
    if redis.call('HEXISTS', items, id) == 0 then
      return id, true
    end
  end
  return redis.error_reply('EXISTS other items have the next 1000 ids')
end
