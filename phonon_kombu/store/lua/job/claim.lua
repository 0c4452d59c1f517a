--[[ job/claim: take up to `count` ready jobs for `owner`, those of the first list first.
Jobs that are due are promoted before. Leaves a wake when more are ready, else takes it away.
KEYS    1 items HASH   2 claimed ZSET   3 owners HASH   4 cancelled HASH   5 scheduled ZSET
        6 published ZSET   7 wake ZSET   8 priorities HASH   9 deadlines ZSET   10 ghosts HASH
        11+ levels LIST (all ten, level 0 first)
ARGV    1 owner   2 count   3 order ('highest' takes level 9 first, else level 0)
RETURNS more ready (0/1), ms until the next scheduled job is due (-1: none), then for each job
        its id, its item, how often it was cancelled (nil: never delivered before)
ERRORS  none   STATES ready -> claimed, scheduled -> ready   COST O(count * log n) ]]
--- @include now
local items, claimed, cancelled, scheduled = KEYS[1], KEYS[2], KEYS[4], KEYS[5]
local published, wake, priorities, deadlines, ghosts = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local levels, order = {}, {}
for i = 1, 10 do
  levels[i] = KEYS[10 + i]
  order[ARGV[3] == 'highest' and 11 - i or i] = KEYS[10 + i]
end
--- @include ready
--- @include promote
--- @include forget
--- @include pop
local at = now()
promote(at)
local ids, bodies, more = pop(tonumber(ARGV[2]), at)
local reply = { more and 1 or 0, -1 }
if #ids > 0 then
  local scores, owned = {}, {}
  for i, id in ipairs(ids) do
    scores[2 * i - 1], scores[2 * i] = at, id
    owned[2 * i - 1], owned[2 * i] = id, ARGV[1]
  end
  -- An id can stand in a list twice only if a foreign client put it there: the claim that runs
  -- already is the one that counts.
  local fresh = redis.call('ZADD', claimed, 'NX', unpack(scores)) == #ids
  local failures = redis.call('HMGET', cancelled, unpack(ids))
  local ours = nil
  if not fresh then
    ours, owned = {}, {}
    local owners = redis.call('HMGET', KEYS[3], unpack(ids))
    for i, since in ipairs(redis.call('ZMSCORE', claimed, unpack(ids))) do
      local id = ids[i]
      -- (A mark that a dead owner's claim has left is no owner.)
      local held = owners[i] and string.sub(owners[i], 1, 5) ~= 'late:'
      if not held and tonumber(since) == at and not ours[id] then
        ours[id] = i
        owned[#owned + 1], owned[#owned + 2] = id, ARGV[1]
      end
    end
  end
  for i, id in ipairs(ids) do
    if fresh or ours[id] == i then
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3] = id, bodies[i], failures[i]
    end
  end
  if #owned > 0 then
    redis.call('HSET', KEYS[3], unpack(owned))
  end
end
if more then
  redis.call('ZADD', wake, 0, 'w')
else
  redis.call('DEL', wake)
  local first = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
  if first[2] then
    reply[2] = math.max(0, first[2] - at)
  end
end
return reply
