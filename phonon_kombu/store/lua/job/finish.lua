--[[ job/finish: these jobs are done.
Ids that `owner` does not hold are left alone: a job that another has taken is not ours to finish.
One that was taken from us while we seemed dead, and that nobody has taken since, is.
KEYS    1 claimed ZSET   2 items HASH   3 published ZSET   4 cancelled HASH   5 owners HASH
        6 finishes STRING   7 priorities HASH   8 deadlines ZSET   9 ghosts HASH
        10 config HASH
ARGV    1 owner ('' whoever holds them)   2+ ids
RETURNS how many were finished   ERRORS none
STATES  claimed -> absent, ready -> absent   COST O(ids * log n) ]]
local claimed, items, published, cancelled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owners, finishes, priorities = KEYS[5], KEYS[6], KEYS[7]
local deadlines, ghosts, config = KEYS[8], KEYS[9], KEYS[10]
--- @include lifetime
--- @include forget
--- @include late
--- @include done
local given = { unpack(ARGV, 2) }
if ARGV[1] ~= '' then
  return done(held(given, ARGV[1]))
end
local ids = {}
for i, score in ipairs(redis.call('ZMSCORE', claimed, unpack(given))) do
  if score then
    ids[#ids + 1] = given[i]
  end
end
return done(ids, 0)
