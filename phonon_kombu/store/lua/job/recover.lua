--[[ job/recover: give back a slice of what `owner` holds, to the front, marked redelivered.
Those that have failed before go behind the others, and every other time the youngest first: where
one of them kills its worker, once the older ones are done before and once the younger ones. Where
there are several such, chance must help: from the fifth time on the order is any.
The owner may still finish what nobody has claimed since, where it was taken for dead ('cancel').
KEYS    1 claimed ZSET   2 owners HASH   3 cancelled HASH   4 published ZSET   5 wake ZSET
        6 priorities HASH   7 stalled SET   8 reasons HASH   9 config HASH   10 items HASH
        11 deadlines ZSET   12+ levels LIST (all ten, level 0 first)
ARGV    1 owner (ending in '.': all that begin with it)   2 cursor ('0' to begin)
        3 mode ('cancel' counts a failure, else 'restore')
        4 max_deliveries ('' no limit; see job/cancel)
        5 before_ms ('' any: else only what was claimed until then)   6+ ids to leave
RETURNS the next cursor ('0': that was all), how many were given back, how many were claimed since
ERRORS  none
STATES  claimed -> ready, stalled   COST O(slice), a slice is about 200 claims ]]
local claimed, cancelled, published, wake, priorities = KEYS[1], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local stalled, reasons, config = KEYS[7], KEYS[8], KEYS[9]
local levels, deadlines = { unpack(KEYS, 12) }, KEYS[11]
--- @include lifetime
--- @include ready
--- @include fail
--- @include late
local owner, whole = ARGV[1], string.sub(ARGV[1], -1) ~= '.'
local counts, before = ARGV[3] == 'cancel', tonumber(ARGV[5])
local kept, found, since_then = {}, {}, 0
for i = 6, #ARGV do
  kept[ARGV[i]] = true
end
local scan = redis.call('HSCAN', KEYS[2], ARGV[2], 'COUNT', 200)
for i = 1, #scan[2], 2 do
  local id, held_by = scan[2][i], scan[2][i + 1]
  local holder = whole and held_by or string.sub(held_by, 1, #owner)
  if holder == owner then
    local since = redis.call('ZSCORE', claimed, id)
    if not since then
      -- A peer that knows no owners has finished it or given it back.
      redis.call('HDEL', KEYS[2], id)
    elseif before and tonumber(since) > before then
      since_then = since_then + 1
    elseif not kept[id] then
      local put_at = redis.call('ZSCORE', published, id)
      local failures = counts and tonumber(redis.call('HGET', cancelled, id) or 0) or 0
      found[#found + 1] = {
        id = id, held_by = held_by, put_at = put_at, at = tonumber(put_at or 0), place = i,
        failures = failures, chance = failures > 3 and redis.sha1hex(failures .. id) or '',
      }
    end
  elseif string.sub(held_by, 1, 5) == 'late:' and redis.call('HEXISTS', KEYS[10], id) == 0 then
    redis.call('HDEL', KEYS[2], id)
  end
end
-- The one to be first comes last, each in front of the one before.
table.sort(found, function(b, a)
  if a.failures ~= b.failures then
    return a.failures < b.failures
  end
  if a.chance ~= b.chance then
    return a.chance < b.chance
  end
  if a.failures % 2 == 1 then
    a, b = b, a
  end
  if a.at ~= b.at then
    return a.at < b.at
  end
  return a.place < b.place
end)
local limit = counts and most_deliveries(ARGV[4])
for _, job in ipairs(found) do
  redis.call('ZREM', claimed, job.id)
  redis.call('HDEL', KEYS[2], job.id)
  if not counts then
    redis.call('HSETNX', cancelled, job.id, 0)
    ready(job.id, true)
  elseif not fail(job.id, limit) then
    redis.call('HSET', KEYS[2], job.id, late_mark(job.put_at or '', job.held_by))
    ready(job.id, true)
  end
end
return lifetime({ scan[1], #found, since_then })
