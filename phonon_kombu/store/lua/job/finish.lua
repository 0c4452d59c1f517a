--[[ job/finish: these jobs are done.
Ids that `owner` does not hold are left alone: a job that another has taken is not ours to finish.
One that was taken from us while we seemed dead, and that nobody has taken since, is.
KEYS    1 claimed ZSET   2 items HASH   3 published ZSET   4 cancelled HASH   5 owners HASH
        6 finishes STRING   7 priorities HASH   8 deadlines ZSET   9 ghosts HASH
ARGV    1 owner ('' whoever holds them)   2+ ids
RETURNS how many were finished   ERRORS none
STATES  claimed -> absent, ready -> absent   COST O(ids * log n) ]]
local claimed, items, published, cancelled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local priorities, deadlines = KEYS[7], KEYS[8]
--- @include forget
--- @include late
local given = { unpack(ARGV, 2) }
local ids, late = {}, 0
if ARGV[1] == '' then
  for i, score in ipairs(redis.call('ZMSCORE', claimed, unpack(given))) do
    if score then
      ids[#ids + 1] = given[i]
    end
  end
else
  for i, held_by in ipairs(redis.call('HMGET', KEYS[5], unpack(given))) do
    local id = given[i]
    if held_by == ARGV[1] then
      ids[#ids + 1] = id
    elseif is_late(id, held_by, ARGV[1]) then
      -- Its entry in the list stands for nothing any more. Named twice, it is late once.
      redis.call('HINCRBY', KEYS[9], id, 1)
      redis.call('ZREM', published, id)
      ids[#ids + 1], late = id, late + 1
    end
  end
end
local finished = 0
if #ids > 0 then
  -- An id may be named twice, or a peer that knows no owners may have finished the job.
  finished = redis.call('ZREM', claimed, unpack(ids)) + late
  redis.call('HDEL', KEYS[5], unpack(ids))
  forget(ids)
  if finished > 0 then
    redis.call('INCRBY', KEYS[6], finished)
  end
end
return finished
