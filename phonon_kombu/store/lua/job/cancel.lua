--[[ job/cancel: give claimed jobs back, to the front of their queue in the order given.
KEYS    1 claimed ZSET   2 owners HASH   3 cancelled HASH   4 scheduled ZSET   5 wake ZSET
        6 priorities HASH   7 stalled SET   8 reasons HASH   9 published ZSET   10 config HASH
        11 deadlines ZSET   12+ levels LIST (all ten, level 0 first)
ARGV    1 owner ('' whoever holds them)
        2 mode ('cancel' counts a failure, 'restore' marks redelivered, 'release' neither)
        3 delay_ms ('' none: else they become scheduled), with 'release' until_ms ('' any: else only
        what was claimed until then)
        4 max_deliveries ('' no limit: a job that failed so often is stalled; where the queue's
        config has one, that counts)
        5 channel ('' none: else each one is announced on it)
        6+ ids (after an empty one, jobs that stay before them where these stand in front)
RETURNS how many were given back   ERRORS none
STATES  claimed -> ready, scheduled, stalled   COST O(ids * (log n + jobs that stay before)) ]]
--- @include now
local wake, priorities, config = KEYS[5], KEYS[6], KEYS[10]
local cancelled, stalled, reasons, published = KEYS[3], KEYS[7], KEYS[8], KEYS[9]
local levels, deadlines = { unpack(KEYS, 12) }, KEYS[11]
--- @include lifetime
--- @include ready
--- @include fail
local at, counts = now(), ARGV[2] == 'cancel'
local delay_ms, until_ms = tonumber(ARGV[3]) or 0, math.huge
if ARGV[2] == 'release' then
  delay_ms, until_ms = 0, tonumber(ARGV[3]) or until_ms
end
local limit = counts and most_deliveries(ARGV[4])
local given, stay, staying = {}, {}, 0
for i = 6, #ARGV do
  if staying > 0 then
    stay[ARGV[i]] = true
    staying = staying + 1
  elseif ARGV[i] == '' then
    staying = 1
  else
    given[#given + 1] = ARGV[i]
  end
end
local owners = redis.call('HMGET', KEYS[2], unpack(given))
local scores = redis.call('ZMSCORE', KEYS[1], unpack(given))
local done = 0
-- From the last to the first: each goes in front of the one before.
for i = #given, 1, -1 do
  local id = given[i]
  if scores[i] and tonumber(scores[i]) <= until_ms and (ARGV[1] == '' or owners[i] == ARGV[1])
    and redis.call('ZREM', KEYS[1], id) == 1 then
    done = done + 1
    redis.call('HDEL', KEYS[2], id)
    if ARGV[2] == 'restore' then
      redis.call('HSETNX', cancelled, id, 0)
    end
    if not (counts and fail(id, limit)) then
      if delay_ms > 0 then
        redis.call('ZADD', KEYS[4], at + delay_ms, id)
        redis.call('ZADD', wake, 0, 'w')
      else
        ready(id, true, stay, staying - 1)
      end
    end
    if ARGV[5] ~= '' then
      redis.call('PUBLISH', ARGV[5], id)
    end
  end
end
return lifetime(done)
