--[[ held(given, owner): which of these jobs `owner` may say to be done: those that it holds, and
those that were taken from it while it seemed dead and that nobody has taken since. Returns their
ids, and how many of them are of the second kind.
done(ids, late, plain): finish what held() has returned; returns how many were finished.
Needs is_late(), forget(), lifetime() and the locals `claimed`, `owners`, `published`, `ghosts`,
`finishes`.
COST of held() one command, of done() four and up to four more ]]
local function held(given, owner)
  local ids, late = {}, 0
  for i, held_by in ipairs(redis.call('HMGET', owners, unpack(given))) do
    local id = given[i]
    if held_by == owner then
      ids[#ids + 1] = id
    elseif is_late(id, held_by, owner) then
      -- Its entry in the list stands for nothing any more. Named twice, it is late once.
      redis.call('HINCRBY', ghosts, id, 1)
      redis.call('ZREM', published, id)
      ids[#ids + 1], late = id, late + 1
    end
  end
  return ids, late
end
local function done(ids, late, plain)
  if #ids == 0 then
    return 0
  end
  -- An id may be named twice, or a peer that knows no owners may have finished the job.
  local finished = redis.call('ZREM', claimed, unpack(ids)) + late
  redis.call('HDEL', owners, unpack(ids))
  forget(ids, plain)
  if finished > 0 and redis.call('INCRBY', finishes, finished) == finished or late > 0 then
    lifetime()
  end
  return finished
end
