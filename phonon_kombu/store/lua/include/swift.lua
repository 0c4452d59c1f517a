--[[ swift(count, at): what job/claim does where the queue has none of the parts that few jobs have,
as most queues at most times: their jobs are all of level 0, and stand in its list, none is
scheduled, none has a deadline, no entry is a ghost, and none was ever cancelled. Returns the
script's reply.
Needs hold() and the locals `items`, `wake`, `first` (the list of level 0).
COST seven commands, two more for each such id at the most ]]
local function swift(count, at)
  local reply, ids, bodies, wanted = { 0, -1 }, {}, {}, math.min(count, 1000)
  -- An id without an item stands for no job: a foreign client has left it. So again, with an end.
  for _ = 1, 500 do
    local asked = wanted - #ids
    local popped = redis.call('RPOP', first, asked) or {}
    if #popped > 0 then
      for i, item in ipairs(redis.call('HMGET', items, unpack(popped))) do
        if item then
          ids[#ids + 1], bodies[#bodies + 1] = popped[i], item
        end
      end
    end
    if #ids == wanted or #popped < asked then
      break
    end
  end
  if #ids > 0 then
    hold(ids, bodies, ARGV[1], at, reply, true)
  end
  if redis.call('EXISTS', first) == 1 then
    redis.call('ZADD', wake, 0, 'w')
    reply[1] = 1
  else
    redis.call('DEL', wake)
  end
  return reply
end
