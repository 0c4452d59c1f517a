--[[ job/finish: these jobs are done.
Ids that `owner` does not hold are left alone: a job that another has taken is not ours to finish.
KEYS    1 claimed ZSET   2 items HASH   3 published ZSET   4 cancelled HASH   5 owners HASH
        6 finishes STRING   7 priorities HASH   8 deadlines ZSET
ARGV    1 owner ('' whoever holds them)   2+ ids
RETURNS how many were finished   ERRORS none   STATES claimed -> absent   COST O(ids * log n) ]]
local items, published, cancelled = KEYS[2], KEYS[3], KEYS[4]
local priorities, deadlines = KEYS[7], KEYS[8]
--- @include forget
local given = { unpack(ARGV, 2) }
local ids = {}
if ARGV[1] == '' then
  for i, score in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(given))) do
    if score then
      ids[#ids + 1] = given[i]
    end
  end
else
  for i, owner in ipairs(redis.call('HMGET', KEYS[5], unpack(given))) do
    if owner == ARGV[1] then
      ids[#ids + 1] = given[i]
    end
  end
end
local finished = 0
if #ids > 0 then
  -- An id may be named twice, or a peer that knows no owners may have finished the job.
  finished = redis.call('ZREM', KEYS[1], unpack(ids))
  redis.call('HDEL', KEYS[5], unpack(ids))
  forget(ids)
  if finished > 0 then
    redis.call('INCRBY', KEYS[6], finished)
  end
end
return finished
