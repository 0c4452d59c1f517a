--[[ model/read: the aggregate of a record.
KEYS    1 row HASH   2+ collections (of the record's layout, in its order)
ARGV    1 slice (entries of a list or set, at the most)
        2+ wanted (names of the row's fields, then the kind of each collection)
RETURNS the row's values (nil: none), then for each collection: list, set: its size, and its
        entries up to a slice (a set: all or none); window, top: entry, score, ..., in order;
        distinct: their number
ERRORS  none   COST O(slice), O(length of windows and tops) ]]
local slice, names, reply = tonumber(ARGV[1]), {}, { {} }
for i = 2, #ARGV do
  names[i - 1] = ARGV[i]
end
local fields = #names - #KEYS + 1
for at = 1, fields, 500 do
  local upto = math.min(at + 499, fields)
  for n, value in ipairs(redis.call('HMGET', KEYS[1], unpack(names, at, upto))) do
    reply[1][at + n - 1] = value
  end
end
for i = 2, #KEYS do
  local key, kind = KEYS[i], names[fields + i - 1]
  if kind == 'list' then
    reply[i] = { redis.call('LLEN', key), redis.call('LRANGE', key, 0, slice - 1) }
  elseif kind == 'set' then
    local size = redis.call('SCARD', key)
    reply[i] = { size, size <= slice and redis.call('SMEMBERS', key) or {} }
  elseif kind == 'distinct' then
    reply[i] = redis.call('PFCOUNT', key)
  else
    reply[i] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  end
end
return reply
