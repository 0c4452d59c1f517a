--[[ job/relist: put jobs that are in no state back among the ready ones.
A foreign client that pops an id and dies before it claims it leaves such a job.
KEYS    1 items HASH   2 claimed ZSET   3 scheduled ZSET   4 stalled SET   5 wake ZSET
        6 priorities HASH   7 config HASH   8+ levels LIST (all ten, level 0 first)
ARGV    1+ ids that stand in no list
RETURNS how many were put back   ERRORS none   STATES (lost) -> ready   COST O(ids * log n) ]]
local wake, priorities, config = KEYS[5], KEYS[6], KEYS[7]
local levels = { unpack(KEYS, 8) }
--- @include lifetime
--- @include ready
local done = 0
for _, id in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1], id) == 1 and not redis.call('ZSCORE', KEYS[2], id)
    and not redis.call('ZSCORE', KEYS[3], id) and redis.call('SISMEMBER', KEYS[4], id) == 0 then
    ready(id, true)
    done = done + 1
  end
end
return lifetime(done)
