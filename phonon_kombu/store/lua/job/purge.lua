--[[ job/purge: delete a slice of the jobs that wait, ready or scheduled.
KEYS    1 items HASH   2 scheduled ZSET   3 published ZSET   4 cancelled HASH   5 priorities HASH
        6 deadlines ZSET   7 ghosts HASH   8 wake ZSET   9+ levels LIST (all ten, level 0 first)
ARGV    1 limit (jobs in this slice)
RETURNS how many were deleted, more wait (0/1)   ERRORS none
STATES  ready, scheduled -> absent   COST O(limit * log n) ]]
local items, published, cancelled = KEYS[1], KEYS[3], KEYS[4]
local priorities, deadlines, ghosts = KEYS[5], KEYS[6], KEYS[7]
local order = { unpack(KEYS, 9) }
-- What somebody throws away is no dead letter.
local dead, lettered = nil, false
--- @include forget
--- @include drop
--- @include pop
local limit = math.min(tonumber(ARGV[1]), 1000)
local ids, _, more = pop(limit, 0)
local later = {}
if #ids < limit then
  later = redis.call('ZRANGE', KEYS[2], 0, limit - #ids - 1)
end
if #later > 0 then
  redis.call('ZREM', KEYS[2], unpack(later))
end
for _, id in ipairs(later) do
  ids[#ids + 1] = id
end
if #ids > 0 then
  forget(ids)
end
if more or redis.call('EXISTS', KEYS[2]) == 1 then
  return { #ids, 1 }
end
redis.call('DEL', KEYS[8])
return { #ids, 0 }
