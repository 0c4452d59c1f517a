--[[ hold(ids, bodies, owner, at, reply, plain): note these jobs as claimed by `owner`, and add them
to the reply: id, item, how often cancelled. With `plain` the caller knows that none ever was.
Needs the locals `claimed`, `cancelled`, `owners`.
COST two commands, up to five ]]
local function hold(ids, bodies, owner, at, reply, plain)
  local scores, owned = {}, {}
  for i, id in ipairs(ids) do
    scores[2 * i - 1], scores[2 * i] = at, id
    owned[2 * i - 1], owned[2 * i] = id, owner
  end
  -- An id can stand in a list twice only if a foreign client put it there: the claim that runs
  -- already is the one that counts.
  local fresh = redis.call('ZADD', claimed, 'NX', unpack(scores)) == #ids
  local failures = plain and {} or redis.call('HMGET', cancelled, unpack(ids))
  local ours = nil
  if not fresh then
    ours, owned = {}, {}
    local holders = redis.call('HMGET', owners, unpack(ids))
    for i, since in ipairs(redis.call('ZMSCORE', claimed, unpack(ids))) do
      local id = ids[i]
      -- (A mark that a dead owner's claim has left is no owner.)
      local held = holders[i] and string.sub(holders[i], 1, 5) ~= 'late:'
      if not held and tonumber(since) == at and not ours[id] then
        ours[id] = i
        owned[#owned + 1], owned[#owned + 2] = id, owner
      end
    end
  end
  for i, id in ipairs(ids) do
    if fresh or ours[id] == i then
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3] = id, bodies[i], failures[i] or false
    end
  end
  if #owned > 0 then
    redis.call('HSET', owners, unpack(owned))
  end
end
