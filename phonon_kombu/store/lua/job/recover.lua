--[[ job/recover: give back a slice of what `owner` holds, to the front, marked redelivered.
KEYS    1 claimed ZSET   2 owners HASH   3 cancelled HASH   4 published ZSET   5 wake ZSET
        6 priorities HASH   7+ levels LIST (all ten, level 0 first)
ARGV    1 owner (ending in '.': all that begin with it)   2 cursor ('0' to begin)
        3 mode ('cancel' counts a failure, else 'restore')   4+ ids to leave
RETURNS the next cursor ('0': that was all), how many were given back   ERRORS none
STATES  claimed -> ready   COST O(slice), a slice is about 200 claims ]]
local wake, priorities = KEYS[5], KEYS[6]
local levels = { unpack(KEYS, 7) }
--- @include ready
local owner, whole = ARGV[1], string.sub(ARGV[1], -1) ~= '.'
local kept = {}
for i = 4, #ARGV do
  kept[ARGV[i]] = true
end
local scan = redis.call('HSCAN', KEYS[2], ARGV[2], 'COUNT', 200)
local found = {}
for i = 1, #scan[2], 2 do
  local id = scan[2][i]
  local holder = whole and scan[2][i + 1] or string.sub(scan[2][i + 1], 1, #owner)
  if holder == owner and not kept[id] then
    found[#found + 1] = { id, tonumber(redis.call('ZSCORE', KEYS[4], id) or 0), i }
  end
end
-- The youngest first, each later one in front of it: the oldest ends up in front.
table.sort(found, function(a, b)
  if a[2] ~= b[2] then
    return a[2] > b[2]
  end
  return a[3] > b[3]
end)
for _, entry in ipairs(found) do
  local id = entry[1]
  redis.call('HDEL', KEYS[2], id)
  if redis.call('ZREM', KEYS[1], id) == 1 then
    if ARGV[3] == 'cancel' then
      redis.call('HINCRBY', KEYS[3], id, 1)
    else
      redis.call('HSETNX', KEYS[3], id, 0)
    end
    ready(id, true)
  end
end
return { scan[1], #found }
