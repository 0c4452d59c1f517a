--[[ link(id, where, ref) puts an id into the order of a sorted feed, `where` being "begin", "end",
"before" or "after" (of `ref`); unlink(id) takes it out. The order is a ring of links in two hashes,
in which the empty id stands between the last one and the first: both take the same few commands
however long the feed is.
Needs the locals `following`, `previous` and `moves`.
COST three commands, five ]]
local function link(id, where, ref)
  local left, right = '', ''
  if where == 'before' then
    left, right = redis.call('HGET', previous, ref), ref
  elseif where == 'after' then
    left, right = ref, redis.call('HGET', following, ref)
  elseif where == 'begin' then
    right = redis.call('HGET', following, '') or ''
  else
    left = redis.call('HGET', previous, '') or ''
  end
  redis.call('HSET', following, left, id, id, right)
  redis.call('HSET', previous, right, id, id, left)
  if right ~= '' then
    redis.call('INCR', moves)
  end
end

local function unlink(id)
  local left, right = redis.call('HGET', previous, id), redis.call('HGET', following, id)
  redis.call('HSET', following, left, right)
  redis.call('HSET', previous, right, left)
  redis.call('HDEL', following, id)
  redis.call('HDEL', previous, id)
  redis.call('INCR', moves)
end
